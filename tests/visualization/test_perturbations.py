"""What the perturbations do: the log by hand, partial dependence by hand, pictures that everybody can read."""

import math

import pytest
import torch
from conftest import Squares

from clp_hf import PerturbationNetwork
from clp_hf.perturbation import MetaNetwork
from clp_hf.perturbation.record import record_perturbation

pytest.importorskip("matplotlib")

from clp_hf.visualization import (
    accuracies_figure,
    lines_figure,
    logged,
    loss_raised_figure,
    partial_dependence,
    partial_dependence_figure,
    run_pictures,
)
from clp_hf.visualization.style import DARK_INK, INK, PALETTE, to_svg


class Linear(MetaNetwork):
    """Answers 2 x₀ + x₁, and 10 more for label 1."""

    NAME = "weight"
    LEVEL = "level"
    characteristics = ("loss", "margin", "entropy")

    def forward(self, characteristics, labels, background_logits=None):
        return 2 * characteristics[:, 0] + characteristics[:, 1] + 10 * labels

    def level(self, output, labels):
        return output


def linear():
    network = Linear()
    inputs = torch.tensor([[0.0, 1.0, 5.0], [1.0, 3.0, 5.0], [2.0, 5.0, 5.0], [3.0, 9.0, 5.0]])
    network.remember(inputs, torch.tensor([0, 0, 1, 1]))
    return network


# ---- the log ---------------------------------------------------------------------------------------------------------


def test_perturbation_and_raised_loss_of_every_class_and_group_by_hand(make_trainer):
    trainer = make_trainer(train_dataset=Squares(60, columns=("mask", "group")))
    perturbation = torch.tensor([[1.0, 0, 0], [3.0, 0, 0], [0, -2.0, 0], [0, 4.0, 2.0]])
    batch = {"labels": torch.tensor([0, 0, 1, 1]), "group": torch.tensor([0, 1, 2, 2])}
    learner = trainer.learner
    record_perturbation(learner.means, learner.network, torch.zeros(4, 3), perturbation, batch)
    trainer.log({"loss": 0.0})
    entry = trainer.state.log_history[-1]
    # own class over the mean of the others: 1, 3, -2, 4 - 2 / 2
    assert [entry[f"perturbation_class_{label}"] for label in (0, 1)] == pytest.approx([2, 0.5])
    assert [entry[f"perturbation_group_{group}"] for group in (0, 1, 2)] == pytest.approx([1, 3, 0.5])
    # of the third sample alone the cross-entropy rises
    assert [entry[f"loss_raised_class_{label}"] for label in (0, 1)] == pytest.approx([0, 0.5])
    assert [entry[f"loss_raised_group_{group}"] for group in (0, 1, 2)] == pytest.approx([0, 0, 0.5])
    assert not {"perturbation_class_2", "loss_raised_clean", "loss_raised_noisy"} & set(entry)


def test_seeds_are_averaged_epoch_by_epoch():
    histories = [
        [{"epoch": 2.0, "loss": 1.0}, {"epoch": 1.0, "loss": 3.0}, {"loss": 9.0}],
        [{"epoch": 1.0, "loss": 5.0}, {"epoch": 1.0, "eval_loss": 7.0}],
    ]
    assert logged(histories, "loss", 10) == [(1.0, 40.0), (2.0, 10.0)]
    assert logged(histories, "nothing") == []


# ---- partial dependence ----------------------------------------------------------------------------------------------


def test_partial_dependence_by_hand():
    responses = partial_dependence(linear(), points=2)
    assert list(responses) == ["loss", "margin"]  # the entropy is the same for all
    values, response = responses["loss"]
    torch.testing.assert_close(values, torch.tensor([0.15, 2.85]))
    torch.testing.assert_close(response, torch.tensor([[0.3 + 2, 0.3 + 7 + 10], [5.7 + 2, 5.7 + 7 + 10]]))


def test_a_gate_of_one_answers_the_background_margin_itself():
    network = PerturbationNetwork(3, characteristics=["loss", "background_margin"])  # u_z is added as it is
    inputs = torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
    network.remember(inputs, torch.arange(30) % 3)
    responses = partial_dependence(network)
    values, response = responses["background_margin"]
    torch.testing.assert_close(response, values[:, None].expand(-1, 3))
    means = torch.stack([inputs[torch.arange(30) % 3 == label, 1].mean() for label in range(3)])
    torch.testing.assert_close(responses["loss"][1], means.expand(25, -1))


def test_a_network_that_has_seen_nothing_has_no_response():
    with pytest.raises(ValueError, match=r"no recent samples .* characteristics.safetensors"):
        partial_dependence(PerturbationNetwork(2))


# ---- pictures --------------------------------------------------------------------------------------------------------


def test_partial_dependence_has_a_panel_for_each_characteristic_and_a_line_for_each_class():
    figure = partial_dependence_figure(linear(), ["small", "large"])
    drawn = [axes for axes in figure.axes if axes.lines]
    assert [axes.get_xlabel() for axes in drawn] == ["loss, nats", "margin, probability"]
    assert [[line.get_label() for line in axes.lines] for axes in drawn] == [["small", "large"]] * 2
    assert drawn[0].lines[0].get_ydata()[0] == pytest.approx(2 * 0.15 + 2)


def test_lines_differ_by_more_than_colour_and_axes_have_units():
    figure = lines_figure({"a": [(0, 1), (1, 2)], "b": [(0, 2), (1, 1)]}, "loss, nats", selected=1.0)
    first, second, selected = figure.axes[0].lines
    assert first.get_linestyle() != second.get_linestyle()
    assert first.get_marker() != second.get_marker()
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("epoch", "loss, nats")
    assert list(selected.get_xdata()) == [1.0, 1.0]


def test_a_name_keeps_its_colour_where_another_is_missing():
    both, one = (
        lines_figure(series, "%", order=["a", "b"]) for series in ({"a": [(0, 1)], "b": [(0, 2)]}, {"b": [(0, 2)]})
    )
    assert both.axes[0].lines[1].get_color() == one.axes[0].lines[0].get_color() != both.axes[0].lines[0].get_color()


def test_of_many_lines_the_extremes_are_named():
    series = {f"class {index}": [(0, 0), (1, index)] for index in range(20)}
    figure = lines_figure(series, "accuracy, %")
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["class 19", "class 18", "class 17", "class 2", "class 1", "class 0"]
    assert len(figure.axes[0].lines) == 20


def test_figure_5_and_accuracies_of_runs():
    figure = loss_raised_figure({"clp": {"clean": [(1, 80), (2, 90)], "noisy": [(1, 20), (2, 10)]}})
    assert [line.get_label() for line in figure.axes[0].lines] == ["clp, clean labels", "clp, noisy labels"]
    figure = accuracies_figure({"erm": {"ant": 10, "bee": 50}, "clp": {"ant": 40, "bee": 60}}, "test accuracy, %")
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["ant", "bee"]
    assert [list(line.get_xdata()) for line in figure.axes[0].lines[2:]] == [[10, 50], [40, 60]]


def test_a_run_has_the_pictures_of_what_it_logged():
    def names(*entries, **kwargs):
        return [picture.name for picture in run_pictures(entries, ["ant", "bee"], **kwargs)]

    assert names() == []
    assert names({"epoch": 1, "loss": 2.0}) == ["loss"]
    assert names({"epoch": 1, "loss_raised_clean": 0.8, "loss_raised_noisy": 0.1}) == ["loss_raised_by_noise"]
    assert names({"epoch": 1, "hard_loss": 2.0, "score": 0.5, "average": 0.7}) == ["loss", "accuracy"]
    assert names({"epoch": 1, "weight_class_1": 0.5}, network=linear()) == ["weight_by_class", "response"]
    grouped = {"epoch": 1, "perturbation_group_0": 1.0, "eval_accuracy_group_on_land": 0.9}
    assert names(grouped, group_names=["on_land"]) == ["accuracy", "perturbation_by_group"]
    assert (
        "Named are the three highest and the three lowest of 20."
        in run_pictures(
            [{"epoch": 1, **{f"perturbation_class_{label}": label for label in range(20)}}], [str(n) for n in range(20)]
        )[0].caption
    )
    # what is evaluated after training is of the checkpoint that was kept
    ended = [{"epoch": 2, "train_runtime": 1.0}, {"epoch": 2, "eval_accuracy": 0.1}]
    (picture,) = run_pictures([{"epoch": 1, "eval_accuracy": 0.5}, *ended], ["ant", "bee"])
    assert picture.alt == "Validation accuracy over the epochs. At the end: average 50."


def luminance(colour):
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    light, dark = sorted([luminance(one), luminance(other)], reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_colours_are_readable_on_light_and_dark():
    """WCAG 2.2: 3 : 1 for graphics, 4.5 : 1 for text."""
    for colour in PALETTE:
        assert min(contrast(colour, "#ffffff"), contrast(colour, "#14171a")) >= 3, colour
    assert min(contrast(INK, "#ffffff"), contrast(DARK_INK, "#14171a")) >= 7


def test_svg_is_the_same_each_time_follows_the_page_and_takes_any_name():
    first, second = (to_svg(lines_figure({"a_$x$ <b>": [(0, 1), (1, math.e)]}, "loss, nats")) for _ in range(2))
    assert first == second
    assert "prefers-color-scheme:dark" in first
    assert INK not in first.replace(f"--ink:{INK}", "")
    assert "<b>" not in first
