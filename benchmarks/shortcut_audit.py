"""What the shortcut audit of `clp-hf inspect` says of data sets whose shortcut is known.

    python benchmarks/shortcut_audit.py --waterbirds path/to/waterbirds_like --cifar10 path/to/cifar10

A table of every cue in every data set: its class-balanced accuracy and its share of what the whole image tells, with
95 % intervals; shortcuts in bold. The tinted sets are made here: in 95 % of their images a tint tells the class.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from common import write_record
from datasets import ClassLabel, Dataset, DatasetDict, Features
from datasets import Image as ImageFeature
from PIL import Image

from clp_hf.data import embedded_birds
from clp_hf.data.sources import read_splits
from clp_hf.inspection import Inspection, inspect_dataset

RESULTS = Path(__file__).parent / "results"
AGREEMENT = 0.95
STRENGTH = 0.25  # of the tint in the mixture


def tinted(images: Dataset, image_column: str, label_column: str, limit: int, seed: int = 0) -> DatasetDict:
    """Images mixed with a hue, which is that of their class in so many of them, and of another class in the others."""
    rng = np.random.default_rng(seed)
    images = images.select(np.sort(rng.permutation(len(images))[:limit]))
    labels = np.asarray(images[label_column])
    names = images.features[label_column].names
    other = (labels + rng.integers(1, len(names), len(labels))) % len(names)
    hues = np.where(rng.random(len(labels)) < AGREEMENT, labels, other)
    colours = [
        Image.new("HSV", (1, 1), (round(255 * hue / len(names)), 255, 255)).convert("RGB").getpixel((0, 0))
        for hue in range(len(names))
    ]
    mixed = [
        Image.blend(image.convert("RGB"), Image.new("RGB", image.size, colours[hue]), STRENGTH)
        for image, hue in zip(images[image_column], hues, strict=True)
    ]
    features = Features(image=ImageFeature(), label=ClassLabel(names=names))
    return DatasetDict(train=Dataset.from_dict({"image": mixed, "label": labels}, features=features))


def without(splits: DatasetDict) -> DatasetDict:
    """Images and labels alone."""
    return DatasetDict({name: split.select_columns(["image", "label"]) for name, split in splits.items()})


def data_sets(args: argparse.Namespace):
    """Title, what tells the class, and the splits, of every data set."""
    birds = embedded_birds()
    yield "embedded birds", "the place, 95 %", birds
    yield "embedded birds, images and labels alone", "the place, 95 %", without(birds)
    even = embedded_birds(n_train=1000, n_validation=4, n_test=4, correlation=0.5)
    yield "embedded birds on any place", "nothing", even
    yield "embedded birds on any place, tinted", "a tint, 95 %", tinted(even["train"], "image", "label", 1000)
    if args.waterbirds:
        waterbirds = read_splits(args.waterbirds)
        yield "waterbirds_like", "the place, 95 %", waterbirds
        yield "waterbirds_like, images and labels alone", "the place, 95 %", without(waterbirds)
    if args.cifar10:
        cifar = read_splits(args.cifar10)
        image = "image" if "image" in cifar["train"].column_names else "img"
        yield "CIFAR-10", "nothing", cifar
        yield "CIFAR-10, tinted", "a tint, 95 %", tinted(cifar["train"], image, "label", args.max_images)


def record_of(title: str, truth: str, inspection: Inspection, seconds: float) -> dict:
    audit = inspection.audit
    return {
        "title": title,
        "tells the class": truth,
        "images": len(audit.sample),
        "classes": len(audit.classes),
        "features": audit.features,
        "image": vars(audit.image),
        "cpu_seconds": round(seconds, 1),
        "cues": [
            {
                "cue": measured.cue.title.removeprefix("the "),
                "accuracy": vars(measured.comparison.accuracy),
                "share": vars(measured.comparison.share),
                "wrong": int(measured.wrong.sum()),
                "followed": measured.followed,
                "shortcut": measured.is_shortcut,
                "tied": measured.is_tied,
            }
            for measured in audit.cues
        ],
    }


def percent(estimate: dict) -> str:
    return f"{100 * estimate['value']:.0f} ({100 * estimate['low']:.0f}–{100 * estimate['high']:.0f})"


def table(records: list[dict]) -> str:
    lines = [
        "# The shortcut audit where the shortcut is known",
        "",
        "`python benchmarks/shortcut_audit.py`: class-balanced accuracy of every cue alone, in percent, its share of "
        "what the whole image tells beyond chance, with 95 % intervals, and how many images it is wrong about. "
        "A shortcut (in bold) has at least 50 at the low end of its share. `waterbirds_like` is not the published "
        "Waterbirds, and the images of CIFAR-10 are JPEG re-encodings.",
    ]
    for record in records:
        named = [cue["cue"] for cue in record["cues"] if cue["shortcut"]]
        lines += [
            "",
            f"## {record['title']}",
            "",
            f"What tells the class: {record['tells the class']}. Named: **{', '.join(named) or 'nothing'}**. "
            f"{record['images']:,} images, {record['classes']} classes; the whole image {percent(record['image'])} %; "
            f"{record['cpu_seconds']:.0f} CPU seconds.",
            "",
            "| cue | accuracy, % | share, % | wrong | |",
            "|---|---:|---:|---:|---|",
        ]
        for cue in record["cues"]:
            verdict = "**shortcut**" if cue["shortcut"] else "one class each" if cue["tied"] else ""
            lines.append(
                f"| {cue['cue']} | {percent(cue['accuracy'])} | {percent(cue['share'])} | {cue['wrong']} | {verdict} |"
            )
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--waterbirds", help="Folder of waterbirds_like.")
    parser.add_argument("--cifar10", help="Folder of CIFAR-10.")
    parser.add_argument("--max_images", type=int, default=2000)
    parser.add_argument("--max_opened", type=int, default=4000)
    parser.add_argument("--output", default=str(RESULTS / "shortcut_audit.json"))
    args = parser.parse_args()
    output = Path(args.output)
    records = json.loads(output.read_text())["records"] if output.is_file() else []
    for title, truth, splits in data_sets(args):
        if title in {record["title"] for record in records}:
            continue  # of a run that was interrupted
        start = time.process_time()
        inspection = inspect_dataset(splits, max_images=args.max_images, max_opened=args.max_opened)
        records.append(record_of(title, truth, inspection, time.process_time() - start))
        print(title, [cue["cue"] for cue in records[-1]["cues"] if cue["shortcut"]], flush=True)
        write_record(output, {"records": records})
    output.with_suffix(".md").write_text(table(records), encoding="utf-8")


if __name__ == "__main__":
    main()
