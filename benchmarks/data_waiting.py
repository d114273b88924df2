"""How long training waits for its images: `CLPTrainer` beside a plain `Trainer` that transforms one image at a time.

    python benchmarks/data_waiting.py --results benchmarks/results/data_waiting     # some minutes on two cores

A folder of JPEG files of 500 × 375 pixels is trained on at 224 pixels: EfficientNet-Lite0, 32 images a step, one
thread, with workers besides. The plain trainer's items are opened with PIL and augmented with torchvision; `clp_hf`'s
come out of `ImageClassificationDataset`, which decodes all of them once where they fit into memory (`kept`), or each
when it is asked for (`read anew`). Waiting is what the loader's iterator takes, and drawing the meta images; its share
is of a step that otherwise takes what the plain one does. Medians over the steps after the first three.
"""

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import torch
from accelerate.data_loader import DataLoaderShard
from common import write_record, write_table
from PIL import Image
from step_cost import machine
from timm.data import IMAGENET_DEFAULT_MEAN as MEAN
from timm.data import IMAGENET_DEFAULT_STD as STD
from torch.utils.data import Dataset
from torchvision.transforms import v2
from transformers import PrinterCallback, Trainer, ViTImageProcessor

from clp_hf import CLPTrainer, CLPTrainingArguments
from clp_hf.causal import MetaBatches
from clp_hf.data import ImageClassificationDataset, TrainTransform
from clp_hf.modeling import load_image_classifier

SIZE, BATCH, META = 224, 32, 64
WORKERS = (0, 2)
SKIPPED = 3  # steps whose batches were made before the first one ended
CLASSES = ("a", "b")


class OneAtATime(Dataset):
    """JPEG files, opened and augmented one by one."""

    def __init__(self, folder: Path):
        self.files = sorted(folder.glob("*/*.jpg"))
        self.transform = v2.Compose(
            [
                v2.RandomResizedCrop(SIZE, (0.7, 1.0)),
                v2.RandomHorizontalFlip(),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD),
            ]
        )

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        path = self.files[index]
        with Image.open(path) as image:
            return {"pixel_values": self.transform(image.convert("RGB")), "labels": CLASSES.index(path.parent.name)}


def images(folder: Path, **options) -> ImageClassificationDataset:
    split = datasets.load_dataset("imagefolder", data_dir=str(folder), split="train")
    return ImageClassificationDataset(split, TrainTransform(SIZE, MEAN, STD), **options)


# name -> the training images of a folder, whether a meta set is there, and the trainer
SETTINGS: dict[str, tuple[Callable, bool, type[Trainer]]] = {
    "plain Trainer": (OneAtATime, False, Trainer),
    "CLPTrainer, kept": (images, True, CLPTrainer),
    "CLPTrainer, read anew": (lambda folder: images(folder, memory_budget=0), True, CLPTrainer),
}


def write_images(folder: Path, count: int) -> None:
    """Photos, as far as their size on disk and the time of decoding go: smooth noise."""
    random = np.random.default_rng(0)
    for index in range(count):
        small = Image.fromarray(random.integers(0, 256, (75, 100, 3), dtype=np.uint8))
        path = folder / CLASSES[index % 2] / f"{index:05d}.jpg"
        path.parent.mkdir(exist_ok=True, parents=True)
        small.resize((500, 375), Image.Resampling.BICUBIC).save(path, quality=90)


def timed(function: Callable, seconds: list[float]) -> Callable:
    """The function, which notes how long each call takes."""

    def call(*args, **kwargs):
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            seconds.append(time.perf_counter() - start)

    return call


def measure(name: str, workers: int, steps: int, folder: Path) -> dict[str, float]:
    """Seconds until the first batch, and medians of waiting and of a whole step."""
    build, has_meta, trainer_class = SETTINGS[name]
    loading, drawing, ends = [], [], []

    def iterate(loader):
        iterator = fetch_all(loader)
        fetch = timed(lambda: next(iterator, None), loading)
        while (batch := fetch()) is not None:
            yield batch

    class Timed(trainer_class):
        def training_step(self, *args, **kwargs):
            loss = super().training_step(*args, **kwargs)
            ends.append(time.perf_counter())
            return loss

    torch.manual_seed(0)
    args = CLPTrainingArguments(
        str(folder / "run"), max_steps=steps, per_device_train_batch_size=BATCH, dataloader_num_workers=workers,
        meta_every=int(has_meta), meta_batch_size=BATCH, lookahead_scope="head", counterfactual_infills=[],
        factual_infills=[], save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    model = load_image_classifier(
        "tf_efficientnet_lite0", id2label=dict(enumerate(CLASSES)), image_size=SIZE, pretrained=False
    )
    start = time.perf_counter()
    more = {"meta_dataset": images(folder / "meta")} if has_meta else {}
    trainer = Timed(
        model=model, args=args, train_dataset=build(folder / "train"),
        processing_class=ViTImageProcessor(size={"height": SIZE, "width": SIZE}), **more,
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    fetch_all, draw = DataLoaderShard.__iter__, MetaBatches.images
    DataLoaderShard.__iter__, MetaBatches.images = iterate, timed(draw, drawing)
    try:
        trainer.train()
    finally:
        DataLoaderShard.__iter__, MetaBatches.images = fetch_all, draw
    between = [after - before for before, after in itertools.pairwise(ends)]
    waiting = statistics.median(loading[SKIPPED:steps])
    meta = statistics.median(drawing[SKIPPED:]) if drawing else 0.0
    return {
        "start": ends[0] - start - statistics.median(between),
        "loader": waiting,
        "meta": meta,
        "step": statistics.median(between[SKIPPED:]),
    }


def lines(record: dict) -> list[str]:
    plain = {workers: record["plain Trainer"][str(workers)] for workers in WORKERS}
    text = [
        f"{record['images']} JPEG files, {BATCH} a step, {SIZE} pixels; {record['machine']['cpu']}. "
        "`benchmarks/data_waiting.py` wrote this and says what the rows are.",
        "",
        "| trainer | workers | until the first step, s | waiting for training images, ms a step | for meta images | "
        "share of a plain step |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name in SETTINGS:
        for workers in WORKERS:
            row = record[name][str(workers)]
            waiting = row["loader"] + row["meta"]
            working = plain[workers]["step"] - plain[workers]["loader"]
            text.append(
                f"| {name} | {workers} | {row['start']:.1f} | {1e3 * row['loader']:.0f} | {1e3 * row['meta']:.0f} | "
                f"{waiting / (working + waiting):.1%} |"
            )
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--steps", type=int, default=14)
    parser.add_argument("--results", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    record = {"machine": machine("cpu"), "images": args.images, "steps": args.steps}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder / "train", args.images)
        write_images(folder / "meta", META)
        for setting in SETTINGS:
            for workers in WORKERS:
                found = measure(setting, workers, args.steps, folder)
                record.setdefault(setting, {})[str(workers)] = found
                print(setting, workers, json.dumps(found), flush=True)
    args.results.mkdir(parents=True, exist_ok=True)
    write_record(args.results / "data_waiting.json", record)
    print(write_table(args.results, lines(record)))


if __name__ == "__main__":
    main()
