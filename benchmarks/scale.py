"""How the cost of a CLP step grows: with the batch, the classes, the processes, and over a long run.

    python benchmarks/scale.py --results benchmarks/results/scale         # half an hour on two cores

A ResNet-32 (CIFAR, 32 pixels), `reuse_gradient` and the rest as they are by default, beside a plain step, on one core a
process:

- **batch**: CPU seconds an image and peak memory, from 8 to 256 images; the meta batch is as large.
- **classes**: the same at 32 images, from 2 to 10,000 classes; here with the log that the trainer keeps.
- **processes**: seconds a step by the wall in one process and in two (gloo), each with 32 images (weak scaling).
- **a long run**: resident memory of `CLPTrainer` after 200 and after all of 2,000 steps of a tiny network.
- **many GPUs**: not measured. Counted from a step of one H100 (`results/step_cost_h100.json`) and the messages that CLP
  sends beside DDP's own, the gradients of look-ahead and meta loss, each as large as the network: around a ring of N
  they take 2 (N − 1) / N × size / bandwidth, at half the nominal bandwidth, and nothing is hidden behind them; DDP's
  are taken to be hidden, in both.

Each measurement is a process of its own; times are medians over rounds in which plain and CLP steps alternate.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import matplotlib
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from common import resident_memory, write_record, write_table
from step_cost import MEMORY_AT_ONCE, machine, measure_memory, measure_time
from steps import ARCHITECTURES, METHODS, Setup, cifar_resnet, clp, plain
from torch.nn.parallel import DistributedDataParallel
from transformers import PrinterCallback, TrainerCallback

matplotlib.use("Agg")
import matplotlib.pyplot as plt

BATCHES = (8, 16, 32, 64, 128, 256)
CLASSES = (2, 10, 100, 1000, 10_000)
STEP = METHODS["CLP, reuse_gradient"]
LONG, EARLY = 2000, 200
ONE_GPU = Path(__file__).parent / "results" / "step_cost_h100.json"
LINKS = {8: ("NVLink in one machine", 225e9), 64: ("400 Gb/s InfiniBand", 25e9)}  # half of the nominal bytes a second
MESSAGES = {"CLP forward": 2.0, "CLP forward, meta_every=10": 0.2}  # a step, beside DDP's


def cost(batch_size: int, classes: int, rounds: int) -> dict:
    """CPU seconds an image of plain and CLP steps, and their ratio."""
    found = measure_time(cifar_resnet(classes), replace(STEP, same_update=False), batch_size, rounds)
    return {
        "plain_seconds": found["plain_seconds"] / batch_size,
        "seconds": found["seconds"] / batch_size,
        "time_ratio": found["time_ratio"],
    }


def memory(batch_size: int, classes: int, plainly: int) -> float:
    """Peak MiB of a plain or a CLP step."""
    step = METHODS["plain"] if plainly else STEP
    return measure_memory(cifar_resnet(classes), step, batch_size)["memory"]


def _together(rank: int, world: int, rounds: int, path: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}
    dist.init_process_group("gloo", rank=rank, world_size=world)
    seconds = {}
    for name, build in (("plain", plain), ("CLP", partial(clp, reuse_gradient=True))):
        setup = Setup(ARCHITECTURES["resnet32"], 32)
        if world > 1:
            setup.wrapped = DistributedDataParallel(setup.model)
        step, found = build(setup), []
        for index in range(rounds + 1):
            dist.barrier()
            start = time.perf_counter()
            step(index)
            found.append(time.perf_counter() - start)
        seconds[name] = statistics.median(found[1:])
    if rank == 0:
        Path(path).write_text(json.dumps(seconds))
    dist.destroy_process_group()


def together(world: int, rounds: int) -> dict:
    """Seconds by the wall of a plain and a CLP step in `world` processes, 32 images each."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "seconds.json")
        mp.spawn(_together, (world, rounds, path), nprocs=world)
        found = json.loads(Path(path).read_text())
    return found | {"ratio": found["CLP"] / found["plain"]}


class _Memory(TrainerCallback):
    def __init__(self):
        self.found = {}

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step in (EARLY, LONG):
            self.found[state.global_step] = resident_memory()


def long_run() -> dict:
    """MiB that a run holds after 200 and after 2,000 steps."""
    from trainer_overhead import Images
    from transformers import ResNetConfig, ResNetForImageClassification

    from clp_hf import CLPTrainer, CLPTrainingArguments

    images, memory = Images(160), _Memory()
    model = ResNetForImageClassification(
        ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], num_labels=4)
    )
    with tempfile.TemporaryDirectory() as folder:
        args = CLPTrainingArguments(
            folder, max_steps=LONG, per_device_train_batch_size=8, evidence=[], counterfactual_infills=[],
            factual_infills=[], logging_steps=50, save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True,
        )  # fmt: skip
        trainer = CLPTrainer(model=model, args=args, train_dataset=images, meta_dataset=Images(40), callbacks=[memory])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return {"early": memory.found[EARLY], "late": memory.found[LONG]}


def in_process(kind: str, *values: int) -> dict | float:
    environment = dict(os.environ, OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    if kind == "memory":
        environment |= MEMORY_AT_ONCE
    command = [sys.executable, "-W", "ignore", __file__, "--measure", kind, *map(str, values)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


MEASURES = {"cost": cost, "memory": memory, "together": together, "long_run": long_run}


def lines(record: dict) -> list[str]:
    rows = {"batch": ("images a batch", BATCHES), "classes": ("classes", CLASSES)}
    text = [f"CPU: {record['machine']['cpu']}. `benchmarks/scale.py` wrote this and says what the rows are."]
    for key, (title, values) in rows.items():
        text += ["", f"| {title} | plain, ms an image | CLP, ms an image | time, × plain | memory, × plain | MiB |"]
        text.append("|---:|---:|---:|---:|---:|---:|")
        for value in values:
            row = record[key][str(value)]
            times = f"{1e3 * row['plain_seconds']:.2f} | {1e3 * row['seconds']:.2f} | {row['time_ratio']:.2f}"
            text.append(f"| {value:,} | {times} | {row['memory'] / row['plain_memory']:.2f} | {row['memory']:.0f} |")
    text += ["", "| processes | plain, ms a step | CLP, ms a step | time, × plain |", "|---:|---:|---:|---:|"]
    for world, row in record["processes"].items():
        text.append(f"| {world} | {1e3 * row['plain']:.0f} | {1e3 * row['CLP']:.0f} | {row['ratio']:.2f} |")
    run = record["long_run"]
    text += ["", f"A run holds {run['early']:.0f} MiB after {EARLY} steps, {run['late']:.0f} MiB after {LONG:,}."]
    return text


def many_gpus() -> list[str]:
    """What a step costs on 8 and 64 GPUs, by count."""
    model = json.loads(ONE_GPU.read_text())["models"][0]
    size = 4 * model["parameters"]
    text = [
        "",
        f"By count, not measured: {model['title']}, batch 64 a GPU, messages of {size / 2**20:.0f} MiB.",
        "",
        "| GPUs | link | step | messages, ms | time, × plain | × plain on one GPU, measured |",
        "|---:|---|---|---:|---:|---:|",
    ]
    for count, (link, bandwidth) in LINKS.items():
        for name, messages in MESSAGES.items():
            row = model["methods"][name]
            seconds = messages * 2 * (count - 1) / count * size / bandwidth
            ratio = row["time_ratio"] + seconds / row["plain_seconds"]
            text.append(f"| {count} | {link} | {name} | {1e3 * seconds:.1f} | {ratio:.2f} | {row['time_ratio']:.2f} |")
    return text


def draw(record: dict, path: Path) -> None:
    """Cost an image over the batch, and of a step over plain over the classes."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for key, label in (("plain_seconds", "plain"), ("seconds", "CLP")):
        left.plot(BATCHES, [1e3 * record["batch"][str(n)][key] for n in BATCHES], marker="o", label=label)
    left.set(xscale="log", xlabel="images a batch", ylabel="CPU ms an image", ylim=(0, None))
    left.legend()
    rows = [record["classes"][str(count)] for count in CLASSES]
    right.plot(CLASSES, [row["memory"] / row["plain_memory"] for row in rows], marker="o", label="memory")
    right.plot(CLASSES, [row["time_ratio"] for row in rows], marker="o", label="time")
    right.set(xscale="log", xlabel="classes", ylabel="CLP over plain", ylim=(0, None))
    right.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--results", type=Path, help="folder; what is there already is not measured again")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        torch.set_num_threads(1)
        kind, *values = args.measure
        print(json.dumps(MEASURES[kind](*map(int, values))))
        return
    args.results.mkdir(parents=True, exist_ok=True)
    path = args.results / "scale.json"
    record = json.loads(path.read_text()) if path.exists() else {"machine": machine("cpu")}
    wanted = {("batch", str(size)): ("cost", size, 10, args.rounds) for size in BATCHES}
    wanted |= {("classes", str(count)): ("cost", 32, count, args.rounds) for count in CLASSES}
    wanted |= {("processes", str(world)): ("together", world, 3 * args.rounds) for world in (1, 2)}
    for (key, name), command in wanted.items():
        if name not in record.setdefault(key, {}):
            record[key][name] = in_process(*command)
            if command[0] == "cost":
                for title, plainly in (("memory", 0), ("plain_memory", 1)):
                    record[key][name][title] = in_process("memory", *command[1:3], plainly)
            write_record(path, record)
    if "long_run" not in record:
        record["long_run"] = in_process("long_run")
        write_record(path, record)
    print(write_table(args.results, [*lines(record), *many_gpus()]))
    draw(record, args.results / "scale.png")


if __name__ == "__main__":
    main()
