"""What background swapping (`train_infills`) costs over plain ERM: CPU time of the steps of training runs.

    python benchmarks/swap_cost.py

Both train the same network on the same stored images and masks, in turn in one process: A B, B A, A B …, so that a
change of the machine's speed meets both alike. The ratio is the median over the pairs, its spread their quartiles. The
images are noise, each with a box in the middle, half of them before another background. Prints the results; with
`--results` they go to swap_cost.json there too.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from common import write_record
from torch.utils.data import Dataset
from transformers import PrinterCallback, ViTImageProcessor

from clp_hf import CLPTrainer, CLPTrainingArguments
from clp_hf.causal import boxes_to_masks
from clp_hf.modeling import load_image_classifier

# Name, pixels a side and batch size: the networks of the tables.
NETWORKS = {"lite0": ("tf_efficientnet_lite0", 96, 32), "resnet20": ("cifar_resnet20", 32, 128)}
NUM_LABELS = 2
METHODS = {"erm": [], "background_swap": ["mix_rand"]}


class Images(Dataset):
    """Noise with a box in the middle, in memory."""

    def __init__(self, count: int, size: int):
        self.pixel_values = torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))
        self.labels = [index % NUM_LABELS for index in range(count)]
        self.mask = boxes_to_masks([[size // 4, size // 4, size // 2, size // 2]], size, size)[0]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"pixel_values": self.pixel_values[index], "labels": self.labels[index], "mask": self.mask}


def training_seconds(network: str, infills: list[str], steps: int, folder: str) -> float:
    """CPU seconds of training, without building model and trainer."""
    name, size, batch_size = NETWORKS[network]
    torch.manual_seed(0)
    model = load_image_classifier(name, id2label=dict(enumerate("ab")), image_size=size, pretrained=False)
    args = CLPTrainingArguments(
        folder,
        meta_every=0,
        train_infills=infills,
        factual_mask_shape="exact",
        max_steps=steps,
        per_device_train_batch_size=batch_size,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = CLPTrainer(
        model=model,
        args=args,
        train_dataset=Images(4 * batch_size, size),
        processing_class=ViTImageProcessor(size={"height": size, "width": size}),
    )
    trainer.remove_callback(PrinterCallback)
    start = time.process_time()
    trainer.train()
    return time.process_time() - start


def measure(network: str, pairs: int, steps: int) -> dict:
    """The ratio of CPU times, with swapping over without: median and quartiles over pairs of runs."""
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        for infills in METHODS.values():
            training_seconds(network, infills, 1, folder)  # warm up
        for pair in range(pairs):
            order = list(METHODS) if pair % 2 == 0 else list(METHODS)[::-1]
            seconds = {method: training_seconds(network, METHODS[method], steps, folder) for method in order}
            ratios.append(seconds["background_swap"] / seconds["erm"])
    low, median, high = statistics.quantiles(ratios, n=4)
    return {"ratio": median, "quartiles": [low, high], "pairs": ratios, "steps": steps}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--steps", type=int, default=8, help="Optimizer steps of one run.")
    parser.add_argument("--results", type=Path, help="Folder for swap_cost.json.")
    args = parser.parse_args()
    torch.set_num_threads(1)
    records = {network: measure(network, args.pairs, args.steps) for network in args.networks}
    for network, record in records.items():
        name, size, batch_size = NETWORKS[network]
        low, high = record["quartiles"]
        print(
            f"{name}, {size} pixels, batches of {batch_size}: background_swap / erm "
            f"{record['ratio']:.3f} (quartiles {low:.3f}–{high:.3f})"
        )
    if args.results:
        write_record(args.results / "swap_cost.json", records)


if __name__ == "__main__":
    main()
