"""What is remembered of recent batches."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clp_hf.bilevel import FeatureMemory


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=12), size=st.integers(1, 20), resumed=st.integers(0, 12))
def test_it_holds_the_latest_images_also_after_it_was_saved(sizes, size, resumed):
    memory = FeatureMemory(size)
    images = torch.arange(float(sum(sizes)))
    for number, batch in enumerate(images.split(sizes)):
        memory.add(features=batch[:, None], labels=batch.long(), evidence=None)
        if number == resumed:
            state, memory = memory.state_dict(), FeatureMemory(size)
            memory.load_state_dict(state)
    found = memory.read()
    assert found.keys() == {"features", "labels"}
    assert torch.equal(found["features"][:, 0], images[-size:])
    assert torch.equal(found["labels"], images[-size:].long())
    assert sum(len(batch["labels"]) for batch in memory.batches) < size + max(size, *sizes)


def test_it_keeps_no_graph_no_half_precision_and_no_view():
    memory = FeatureMemory(4)
    features = torch.ones(4, 2, dtype=torch.bfloat16, requires_grad=True)
    memory.add(features=features, evidence=torch.ones(4, 3, 2, dtype=torch.float64))
    with torch.no_grad():
        features.zero_()
    found = memory.read()
    assert (found["features"].dtype, found["evidence"].dtype) == (torch.float32, torch.float64)
    assert found["features"].all()
    assert not found["features"].requires_grad


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_it_leaves_out_what_is_not_finite(bad):
    memory = FeatureMemory(6)
    features = torch.ones(4, 2)
    features[1, 1] = bad
    memory.add(features=features, labels=torch.arange(4))
    memory.add(features=torch.ones(4, 2), labels=torch.arange(4, 8))
    assert memory.read()["labels"].tolist() == [2, 3, 4, 5, 6, 7]
    memory.add(features=features, labels=torch.arange(8, 12))
    assert memory.read()["labels"].tolist() == [6, 7, 8, 10, 11]


def test_an_empty_one_is_saved_and_loaded():
    memory = FeatureMemory(3)
    memory.load_state_dict(FeatureMemory(3).state_dict())
    assert memory.read() == {}
