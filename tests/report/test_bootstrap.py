"""Intervals: known by heart for one group, narrower on shared images, wide where there is little to see."""

import numpy as np
import pytest

pytest.importorskip("torchmetrics")
pytest.importorskip("matplotlib")

from clp_hf.report.bootstrap import differences, intervals
from clp_hf.report.scores import Scores


def scores(correct, cells=None, images="the same"):
    correct = np.asarray(correct, bool)
    return Scores(images, np.zeros(len(correct), int) if cells is None else np.asarray(cells), correct)


def test_an_interval_is_that_of_a_binomial_share():
    correct = np.arange(400) < 300
    found, worst, average = intervals([scores(correct)])
    half = 1.96 * (0.75 * 0.25 / 400) ** 0.5
    assert (found.low, found.high) == pytest.approx((0.75 - half, 0.75 + half), abs=0.006)
    assert found == worst
    assert (average.low, average.high) == pytest.approx((found.low, found.high), abs=0.01)


def test_one_image_or_only_right_ones_are_no_certainty():
    single = intervals([scores([True])])[0]
    assert (single.low, single.high) == (0, 1)
    few, many = (intervals([scores(np.ones(n))])[0] for n in (20, 5000))
    assert few.low < 0.95 < 0.999 < many.low
    assert few.high == many.high == 1
    assert not differences([scores([True])], [scores([False])])[0].without_zero


def test_a_difference_on_the_same_images_is_told_where_that_on_others_is_not():
    rest = np.arange(300) < 150
    better = rest | (np.arange(300) >= 290)  # right on ten more
    paired = differences([scores(better)], [scores(rest)])[0]
    apart = differences([scores(better)], [scores(rest, images="others")])[0]
    assert paired.without_zero
    assert paired.low < 10 / 300 < paired.high
    assert not apart.without_zero
    assert apart.high - apart.low > 3 * (paired.high - paired.low)


def test_the_worst_group_is_the_worst_of_every_draw_and_the_average_counts_images():
    cells = [0] * 10 + [1] * 90
    found = intervals([scores([True] * 5 + [False] * 5 + [True] * 90, cells)])
    assert found[2] == found[0]
    assert found[3].low < 0.95 < found[3].high < 1
    assert found[3].low > 0.85


def test_intervals_of_many_small_groups_lie_around_their_figures():
    generator = np.random.default_rng(0)
    cells = np.repeat(np.arange(100), 20)
    correct = generator.random(2000) < 0.9
    *_, worst, average = intervals([scores(correct, cells)])
    lowest = correct.reshape(100, 20).mean(1).min()
    assert worst.low < lowest < worst.high
    assert (average.low + average.high) / 2 == pytest.approx(correct.mean(), abs=0.003)


def test_seeds_that_differ_widen_an_interval():
    alike = [scores(np.arange(500) < 350) for _ in range(3)]
    unlike = [scores(np.arange(500) < right) for right in (250, 350, 450)]
    narrow, wide = (intervals(runs)[0] for runs in (alike, unlike))
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)
    gain = differences([scores(run.correct | (np.arange(500) >= 480)) for run in unlike], unlike)[0]
    assert gain.without_zero  # each seed beside its own counterpart: how far the seeds differ does not matter
    assert gain.high - gain.low < 0.05


def test_the_same_runs_give_the_same_intervals():
    correct = np.random.default_rng(0).random(200) < 0.7
    assert intervals([scores(correct)]) == intervals([scores(correct)])
