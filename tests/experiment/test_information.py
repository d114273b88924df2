"""`benchmarks/information.py`, `ablation.py` and `strength.py`: every row runs, and sees no more than it says."""

import json
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import ablation  # noqa: E402
import information  # noqa: E402
import strength  # noqa: E402
from feature_sets import FeatureSets, SplitFeatures  # noqa: E402

from clp_hf.features import FeatureSet  # noqa: E402


def split(count, correlation, seed, copies):
    """Two features of the object, two of the place, four of neither."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    place = torch.where(torch.rand(count, generator=generator) < correlation, labels, 1 - labels)

    def seen(object_, place):
        noise = torch.randn(count, 8, generator=generator)
        return (
            torch.cat([object_[:, None] * torch.ones(1, 2), place[:, None] * 2 * torch.ones(1, 2)], 1)
            @ (torch.eye(4, 8))
            * 2
            + 0.7 * noise
        )

    other = 1 - labels
    return SplitFeatures(
        FeatureSet(seen(labels, place), torch.zeros(count, 2), labels, 2 * labels + place),
        torch.ones(count, dtype=torch.bool),
        seen(torch.full((count,), 0.5), place),
        torch.stack([seen(labels, other) for _ in range(copies)]) if copies else None,
        place,
    )


@pytest.fixture(scope="module")
def sets():
    parts = split(160, 0.9, 0, 2), split(80, 0.5, 1, 1), split(80, 0.5, 2, 0)
    return FeatureSets(*parts, ["a", "b"], ["a_on_0", "a_on_1", "b_on_0", "b_on_1"], ["0", "1"])


def groups_inside_classes(sets):
    """Without attributes and masks, as of the classes of superclasses."""
    parts = [SplitFeatures(split.images) for split in (sets.train, sets.validation, sets.test)]
    return FeatureSets(*parts, sets.label_names, sets.group_names, None)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("table", "masks"),
    [(information, True), (information, False), (ablation, True)],
    ids=["information", "groups inside classes", "ablation"],
)
def test_every_row_gives_a_head(sets, table, masks):
    of = information.knowledge(sets if masks else groups_inside_classes(sets), 5, 0)
    for name, (_, cut, method) in table.rows(masks).items():
        head, settings = method(cut(of))
        assert head.weight.shape == (2, 8), name
        assert torch.isfinite(head.weight).all(), name
        assert json.dumps(settings)


def test_curves_are_over_all_strengths(sets, tmp_path):
    of = information.knowledge(sets, 5, 0)
    record = {
        "background": strength.curves(of.nothing_swapped(), "background"),
        "attribute": strength.curves(of.without_masks(), "attribute"),
    }
    for curves in record.values():
        assert {len(values) for values in curves.values()} == {len(strength.STRENGTHS)}
        assert all(torch.isfinite(torch.tensor(values)).all() for values in curves.values())
    strength.draw([record], tmp_path / "strength.png")
    assert (tmp_path / "strength.png").is_file()


def test_what_is_not_known_is_not_there(sets):
    of = information.knowledge(sets, 5, 0)
    assert len(of.meta) == 20
    assert len(of.validation) == 60
    bare = of.without_masks()
    assert bare.train.background is bare.train.swapped is bare.meta.background is None
    blind = of.without_groups()
    assert blind.train.images.groups is blind.meta.images.groups is blind.validation.groups is blind.attributes is None
    # the meta set is of the training images then, and no longer among them
    rows = {tuple(row) for row in blind.meta.images.features.tolist()}
    assert rows <= {tuple(row) for row in of.train.images.features.tolist()}
    assert not rows & {tuple(row) for row in blind.train.images.features.tolist()}
    assert len(of.swapped().train) == 3 * len(of.train)
