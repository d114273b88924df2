"""Figures 4, 5 and 7 to 9 of the CLP paper, of the records of benchmarks/compare.py."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from clp_hf.perturbation import CHARACTERISTICS
from clp_hf.visualization import draw_loss_raised, logged

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

Runs = Mapping[str, Sequence[Mapping[str, Any]]]
LEAST_RATIO = 5  # of the largest class to the smallest, from which training data are called long-tailed
MOST_CLASSES = 20  # of more, as many classes of like size are averaged as leave ten points
WITHOUT = "clp_without_"


def write_plots(methods: Runs, score: str, folder: Path) -> list[Path]:
    """Draw what the records tell; each as a PNG file.

    Args:
        methods: the records of each method.
        score: key of the metric that sensitivity and ablation show.
        folder: for the files.

    Returns:
        The files: `per_class.png`, accuracy by class from the largest to the smallest, of long-tailed training data
        (Figure 4); `loss_raised.png`, of data with label noise (Figure 5); `saliency_weight.png` and
        `augmented_images.png`, where CLP was run at several values (Figures 7 and 8); `characteristics.png`, where it
        was run without one of them (Figure 9).
    """
    compared = {name: runs for name, runs in methods.items() if "+" not in name and not name.startswith(WITHOUT)}
    drawings = {
        "per_class": (_per_class, _long_tailed(compared)),
        "loss_raised": (_loss_raised, _with_noise(compared)),
        "saliency_weight": (_sensitivity, _points(methods, "saliency_weight", score)),
        "augmented_images": (_sensitivity, _points(methods, "augmented_copies", score)),
        "characteristics": (_ablation, _without_one(methods, score)),
    }
    files = []
    for name, (draw, data) in drawings.items():
        if not data:
            continue
        figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
        draw(axes, data)
        files.append(folder / f"{name}.png")
        figure.savefig(files[-1], dpi=120, metadata={"Software": None})
        plt.close(figure)
    return files


def _long_tailed(methods: Runs) -> Runs:
    tails = [set(run["class_counts"].values()) for runs in methods.values() for run in runs if "class_counts" in run]
    return methods if tails and all(max(sizes) >= LEAST_RATIO * min(sizes) for sizes in tails) else {}


def _per_class(axes: Axes, methods: Runs) -> None:
    sizes = next(iter(methods.values()))[0]["class_counts"]
    classes = sorted(sizes, key=sizes.get, reverse=True)
    bins = np.array_split(np.arange(len(classes)), len(classes) if len(classes) <= MOST_CLASSES else 10)
    for index, (method, runs) in enumerate(methods.items()):
        accuracies = [[run["metrics"].get(f"test_accuracy_class_{name}", np.nan) for name in classes] for run in runs]
        mean = 100 * np.mean(accuracies, axis=0)
        axes.plot([mean[members].mean() for members in bins], label=method, **_line(index))
    if len(bins) == len(classes):
        labels = [f"{name}\n{sizes[name]:,}" for name in classes]
    else:
        labels = [f"{sizes[classes[members[0]]]:,} to\n{sizes[classes[members[-1]]]:,}" for members in bins]
    axes.set_xticks(range(len(bins)), labels, fontsize="x-small")
    axes.set(xlabel="class and its training images", ylabel="test accuracy, %")
    axes.legend(fontsize="x-small", ncols=2)


def _with_noise(methods: Runs) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Method -> clean or noisy -> (epoch, mean share of raised losses, %)."""
    found = {}
    for method, runs in methods.items():
        histories = [run.get("history", []) for run in runs]
        kinds = {kind: logged(histories, f"loss_raised_{kind}", 100) for kind in ("clean", "noisy")}
        if any(kinds.values()):
            found[method] = {kind: points for kind, points in kinds.items() if points}
    return found


def _loss_raised(axes: Axes, shares: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]]) -> None:
    draw_loss_raised(axes, shares)
    axes.legend(fontsize="x-small", handlelength=4)


def _points(methods: Runs, setting: str, score: str) -> dict[str, Any]:
    """CLP's scores at each value of a setting; none where there is one value only."""
    scores: dict[float, list[float]] = {}
    for method, runs in methods.items():
        if method == "clp" or (method.startswith(f"clp+{setting}=") and method.count("+") == 1):
            for run in runs:
                scores.setdefault(run["settings"].get(setting), []).append(100 * run["metrics"][score])
    if len(scores) < 2:
        return {}
    label = {"saliency_weight": "λ of the saliency regularisation"}.get(setting)
    if setting == "augmented_copies":  # in both roles; none is Meta-LP
        scores = {2 * copies: values for copies, values in scores.items()}
        scores[0] = [100 * run["metrics"][score] for run in methods.get("meta_lp", [])]
        label = "augmented images for each original one"
    return {"scores": {value: found for value, found in sorted(scores.items()) if found}, "label": label, "of": score}


def _sensitivity(axes: Axes, points: Mapping[str, Any]) -> None:
    values, scores = zip(*points["scores"].items(), strict=True)
    _errorbar(axes, range(len(values)), scores)
    axes.set_xticks(range(len(values)), [f"{value:g}" for value in values])
    axes.set(xlabel=points["label"], ylabel=_title(points["of"]))


def _without_one(methods: Runs, score: str) -> dict[str, Any]:
    scores = {
        name: [100 * run["metrics"][score] for run in methods[f"{WITHOUT}{name}"]]
        for name in CHARACTERISTICS
        if f"{WITHOUT}{name}" in methods
    }
    everything = [100 * run["metrics"][score] for run in methods.get("clp", [])]
    return {"scores": scores, "all": everything, "of": score} if scores else {}


def _ablation(axes: Axes, ablation: Mapping[str, Any]) -> None:
    scores, everything = ablation["scores"], ablation["all"]
    _errorbar(axes, range(len(scores)), list(scores.values()), label="without one", linestyle="none")
    if everything:
        mean, spread = statistics.mean(everything), statistics.stdev(everything) if len(everything) > 1 else 0
        axes.axhline(mean, color="C1", label="all ten")
        axes.axhspan(mean - spread, mean + spread, color="C1", alpha=0.15)
    axes.set_xticks(range(len(scores)), list(scores), rotation=30, ha="right", fontsize="small")
    axes.set(xlabel="characteristic left out", ylabel=_title(ablation["of"]))
    axes.legend(fontsize="small")


def _errorbar(axes: Axes, positions: Sequence[float], scores: Sequence[Sequence[float]], **style: Any) -> None:
    spreads = [statistics.stdev(values) if len(values) > 1 else 0 for values in scores]
    axes.errorbar(positions, list(map(statistics.mean, scores)), spreads, marker="o", capsize=3, **style)


def _line(index: int) -> dict[str, Any]:
    return {"color": f"C{index % 10}", "linestyle": "-" if index < 10 else "--", "marker": "."}


def _title(score: str) -> str:
    return f"{score.replace('_', ' ')}, %"
