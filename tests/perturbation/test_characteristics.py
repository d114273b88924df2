"""Every characteristic of Table 1 against a value computed by hand."""

import math

import pytest
import torch

from clp_hf.perturbation import CHARACTERISTICS, EVIDENCES, ClassStatistics, training_characteristics
from clp_hf.perturbation.characteristics import KNOWN_CHARACTERISTICS

# p = (1/2, 1/4, 1/4) for the first sample, (1/8, 7/8, 0+) for the second
LOGITS = torch.tensor([[math.log(2.0), 0.0, 0.0], [0.0, math.log(7.0), -60.0]])
LABELS = torch.tensor([0, 2])
FEATURES = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
HEAD_WEIGHT = torch.tensor([[1.0, 0.0], [0.0, 5.0], [-2.0, 0.0]])
PROPORTIONS = torch.tensor([0.5, 0.3, 0.2])

SECOND_LOSS = math.log(8.0) + 60.0
EXPECTED = {
    "loss": [math.log(2.0), SECOND_LOSS],
    "margin": [0.25, -7 / 8],
    "gradient_norm": [math.sqrt(0.25 + 2 / 16), math.sqrt(1 + 1 / 64 + 49 / 64)],
    "cosine": [0.6, -1.0],
    "entropy": [1.5, -(1 / 8) * math.log2(1 / 8) - (7 / 8) * math.log2(7 / 8)],
    "class_proportion": [0.5, 0.2],
    # the running means hold this first batch only, one sample per class
    "class_loss": [math.log(2.0), SECOND_LOSS],
    "class_weight_norm": [1.0, 4.0],
    "relative_loss": [0.0, 0.0],
    "relative_margin": [0.0, 0.0],
    **{f"{evidence}_margin": [3.0, 4.5] for evidence in EVIDENCES},
}
U_Z = torch.tensor([[2.0, -1.0, -1.0], [-2.0, -1.0, 3.0]])


def characteristics(**kwargs):
    statistics = kwargs.pop("statistics", None) or ClassStatistics(PROPORTIONS)
    return training_characteristics(LOGITS, FEATURES, LABELS, HEAD_WEIGHT, statistics, **kwargs)


@pytest.mark.parametrize("name", KNOWN_CHARACTERISTICS)
def test_hand_computed_value(name):
    values = characteristics(names=[name], extrinsic_logits=U_Z)[:, 0]
    torch.testing.assert_close(values, torch.tensor(EXPECTED[name], dtype=torch.float32), rtol=1e-5, atol=1e-6)


def test_relative_characteristics_compare_with_the_running_mean_of_the_class():
    statistics = ClassStatistics(PROPORTIONS)
    statistics.update(torch.tensor([1.0]), torch.tensor([0.5]), torch.tensor([0]))
    values = characteristics(statistics=statistics, names=["relative_loss", "relative_margin"], update=False)
    torch.testing.assert_close(values[0], torch.tensor([math.log(2.0) - 1.0, 0.25 - 0.5]))
    # the class of the second sample has not been seen: its mean is still 0
    torch.testing.assert_close(values[1], torch.tensor([SECOND_LOSS, -7 / 8], dtype=torch.float32))


def test_class_statistics_are_a_plain_mean_first_and_an_exponential_one_later():
    statistics = ClassStatistics(torch.tensor([0.5, 0.5]), momentum=0.75)
    values, mean = [4.0, 2.0, 0.0, 8.0, 8.0], None
    for step, value in enumerate(values):
        statistics.update(torch.tensor([value, value + 2]), torch.tensor([value, value]), torch.tensor([1, 1]))
        memory = min(step / (step + 1), 0.75)
        mean = value + 1 if mean is None else memory * mean + (1 - memory) * (value + 1)
        assert statistics.loss[1].item() == pytest.approx(mean)
    assert statistics.loss[0].item() == 0.0
    assert statistics.num_updates.tolist() == [0, 5]


def test_class_statistics_survive_a_state_dict():
    statistics = ClassStatistics(PROPORTIONS)
    characteristics(statistics=statistics)
    restored = ClassStatistics(torch.ones(3) / 3)
    restored.load_state_dict(statistics.state_dict())
    assert torch.equal(restored.loss, statistics.loss)
    assert torch.equal(restored.proportion, PROPORTIONS)


def test_class_proportions_of_a_stream_are_counted_with_the_labels():
    statistics = ClassStatistics(torch.ones(3) / 3, counted=True)
    for labels in ([0, 0, 1], [0]):
        statistics.update(torch.ones(len(labels)), torch.ones(len(labels)), torch.tensor(labels))
    assert statistics.proportion.tolist() == [3 / 4, 1 / 4, 0]
    known = ClassStatistics(PROPORTIONS)
    known.update(torch.ones(1), torch.ones(1), torch.tensor([0]))
    assert torch.equal(known.proportion, PROPORTIONS)


def test_the_default_inputs_are_the_papers_ten():
    assert len(CHARACTERISTICS) == 10
    assert torch.equal(characteristics(), characteristics(names=CHARACTERISTICS))


def test_a_subset_comes_in_the_order_of_its_names():
    everything = characteristics()
    subset = characteristics(names=["entropy", "loss"])
    assert torch.equal(subset, everything[:, [CHARACTERISTICS.index("entropy"), CHARACTERISTICS.index("loss")]])


def test_meta_images_do_not_move_the_statistics():
    statistics = ClassStatistics(PROPORTIONS)
    characteristics(statistics=statistics, update=False)
    assert statistics.num_updates.sum() == 0


def test_half_precision_inputs_are_computed_in_float32_and_detached():
    statistics = ClassStatistics(PROPORTIONS)
    values = training_characteristics(
        LOGITS.bfloat16().requires_grad_(), FEATURES.bfloat16(), LABELS, HEAD_WEIGHT.bfloat16(), statistics
    )
    assert values.dtype == torch.float32
    assert not values.requires_grad


@pytest.mark.parametrize("names", [["loss", "hue"], []])
def test_unknown_or_no_names_are_refused_with_the_valid_ones(names):
    with pytest.raises(ValueError, match="one or more of loss, margin, gradient_norm"):
        characteristics(names=names)
