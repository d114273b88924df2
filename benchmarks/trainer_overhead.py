"""What `CLPTrainer` with `meta_every=0` costs over the plain `Trainer`: CPU time of whole training runs.

    python benchmarks/trainer_overhead.py

Both train the same small network on the same stored images, with logging and evaluation, in turn in one process: A B,
B A, A B …, so that a change of the machine's speed meets both alike. The ratio is the median over the pairs, its spread
their quartiles. The network is tiny on purpose: what a trainer adds to a step is largest against it. Prints the result;
with `--results` it goes to trainer_overhead.json there too.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from common import write_record
from torch.utils.data import Dataset
from transformers import PrinterCallback, ResNetConfig, ResNetForImageClassification, Trainer

from clp_hf import CLPTrainer, CLPTrainingArguments

SIZE, NUM_LABELS = 32, 4


class Images(Dataset):
    """Noise, in memory."""

    def __init__(self, count: int):
        self.pixel_values = torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
        self.labels = [index % NUM_LABELS for index in range(count)]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"pixel_values": self.pixel_values[index], "labels": self.labels[index]}


def training_seconds(trainer_class: type[Trainer], images: Images, steps: int, folder: str) -> float:
    """CPU seconds of building a trainer and training."""
    torch.manual_seed(0)
    model = ResNetForImageClassification(
        ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], num_labels=NUM_LABELS)
    )
    args = CLPTrainingArguments(
        folder,
        meta_every=0,
        max_steps=steps,
        per_device_train_batch_size=16,
        logging_steps=10,
        eval_strategy="steps",
        eval_steps=max(steps // 2, 1),
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    start = time.process_time()
    trainer = trainer_class(model=model, args=args, train_dataset=images, eval_dataset=images)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return time.process_time() - start


def measure(pairs: int, steps: int) -> dict:
    """The ratio of CPU times, CLPTrainer over Trainer: median and quartiles over pairs of runs."""
    images, ratios = Images(160), []
    with tempfile.TemporaryDirectory() as folder:
        for trainer_class in (Trainer, CLPTrainer):
            training_seconds(trainer_class, images, 5, folder)  # warm up
        for pair in range(pairs):
            order = (Trainer, CLPTrainer) if pair % 2 == 0 else (CLPTrainer, Trainer)
            seconds = {trainer_class: training_seconds(trainer_class, images, steps, folder) for trainer_class in order}
            ratios.append(seconds[CLPTrainer] / seconds[Trainer])
    low, median, high = statistics.quantiles(ratios, n=4)
    return {"ratio": median, "quartiles": [low, high], "pairs": ratios, "steps": steps}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--steps", type=int, default=100, help="Optimizer steps of one run.")
    parser.add_argument("--results", type=Path, help="Folder for trainer_overhead.json.")
    args = parser.parse_args()
    torch.set_num_threads(1)
    record = measure(args.pairs, args.steps)
    low, high = record["quartiles"]
    print(f"CLPTrainer with meta_every=0 / Trainer: {record['ratio']:.3f} (quartiles {low:.3f}–{high:.3f})")
    if args.results:
        write_record(args.results / "trainer_overhead.json", record)


if __name__ == "__main__":
    main()
