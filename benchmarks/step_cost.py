"""The cost of one CLP step relative to a plain training step: CPU time and peak memory.

    pip install higher torchopt betty-ml                              # the peers
    python benchmarks/step_cost.py                                    # everything, on one core
    python benchmarks/step_cost.py --models resnet18 --rounds 3       # one model
    python benchmarks/step_cost.py --models resnet18 --methods plain CLP higher
    python benchmarks/step_cost.py --device cuda --models resnet50 --batch_size 64 --output step_cost_cuda

Every row is measured in a fresh process. Time: plain steps and steps of the row alternate in that process, A B A B,
after a warm-up; the ratio is the median over rounds of B / A, in CPU seconds, with the allocator as `clp-hf` sets it.
Memory: the peak of resident memory above what the process held once model and optimizers were built, over three steps;
the ratio is to the plain row. (Linux)
On a GPU: elapsed time with the device synchronised, and the peak of what PyTorch has allocated there.

All rows but `plain` have the same hypergradient: the look-ahead of the full network by one plain SGD step on
CE(logits + δ), the meta cross-entropy there, its gradient for the perturbation network, then the ordinary step. That
they agree is measured too: the gradient they leave for the perturbation network in their first step is compared with
the textbook's. Other ones are those of the head scope, which looks ahead with the head only, and of a quarter of the
meta images. The meta batch is as large as the training batch; no saliency, no augmentation but for the evidence's,
random images. `CLP converged` makes another update, at the converged head over 2,048 generated features. `data and
augmentation alone` is what the data of a CLP step cost: two batches of embedded birds, cropped with their masks, a
third of the second made counterfactual and a third factual.

Rows: `CLP` and its options are `MetaLearner.training_step`, as `CLPTrainer` runs it, with its log; `textbook` is double
backward in plain torch as published code has it (Meta-Weight-Net), with its own forward pass for the look-ahead, as
have `higher` and `torchopt`, the PyPI packages, used as their documentation shows. `betty` (betty-ml) is an
approximation: a central difference of two more passes of the training batch. SAMA (Choe et al. 2023), the same with the
optimizer's own step sizes, is not in its release. Attention runs on PyTorch's math backend where second derivatives are
taken, because its other kernels have none.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from common import peak_memory
from steps import ARCHITECTURES, CPU_MODELS, METHODS, Architecture, Method, Setup, plain, textbook

from clp_hf.modeling import parameter_count
from clp_hf.utils.allocator import keep_freed_memory

RESULTS = Path(__file__).parent / "results"
# Of the C library: give freed memory back at once, so that resident memory is memory in use.
MEMORY_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


# ---- one measurement, in its own process -----------------------------------------------------------------------------


def clock() -> float:
    """CPU seconds of this process; on a GPU the time by the wall, when the device has done what it was given."""
    if torch.get_default_device().type == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def measure_time(architecture: Architecture, method: Method, batch_size: int, rounds: int) -> dict:
    """CPU seconds a step of plain training and of `method`, in alternation, and how far its hypergradient is off."""
    setup, baseline = Setup(architecture, batch_size), Setup(architecture, batch_size)
    steps = {"plain": plain(baseline), "method": method.build(setup)}
    result = {}
    if method.same_update:
        reference = Setup(architecture, batch_size)
        textbook(reference)(0)
        steps["method"](0)
        expected, found = (torch.cat([part.flatten() for part in of.network_gradient]) for of in (reference, setup))
        result["hypergradient_difference"] = ((found - expected).norm() / expected.norm()).item()
        del reference
    seconds = {name: [] for name in steps}
    for round_ in range(rounds + 1):
        for name, step in steps.items():
            start = clock()
            for index in range(method.cycle):
                step(index)
            if round_:  # the first is warm-up
                seconds[name].append((clock() - start) / method.cycle)
    ratios = [b / a for a, b in zip(seconds["plain"], seconds["method"], strict=True)]
    return result | {
        "seconds": statistics.median(seconds["method"]),
        "plain_seconds": statistics.median(seconds["plain"]),
        "time_ratio": statistics.median(ratios),
        "time_ratio_range": [min(ratios), max(ratios)],
    }


def measure_memory(architecture: Architecture, method: Method, batch_size: int) -> dict:
    """Peak memory, in MiB, over three steps, above what is held before them."""
    step = method.build(Setup(architecture, batch_size))
    return {"memory": peak_memory(lambda: [step(index) for index in range(3)])}


# ---- all measurements ------------------------------------------------------------------------------------------------


def run_in_process(args: argparse.Namespace, model: str, method: str, kind: str) -> dict:
    environment = dict(os.environ, OMP_NUM_THREADS=str(args.threads), MKL_NUM_THREADS=str(args.threads))
    if kind == "memory":
        environment |= MEMORY_AT_ONCE
    command = [sys.executable, __file__, "--measure", kind, "--models", model, "--methods", method]
    for name in ("device", "threads", "rounds", "batch_size", "memory_batch_size"):
        command += [f"--{name}", str(getattr(args, name))]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if process.returncode:
        return {f"{kind}_error": process.stderr.strip().splitlines()[-1]}
    return json.loads(process.stdout.splitlines()[-1])


def measure(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    torch.set_default_device(args.device)
    architecture, method = ARCHITECTURES[args.models[0]], METHODS[args.methods[0]]
    if args.measure == "time":
        keep_freed_memory()
        result = measure_time(architecture, method, args.batch_size, args.rounds)
    else:
        result = measure_memory(architecture, method, args.memory_batch_size)
    print(json.dumps(result))


def machine(device: str) -> dict:
    packages = {}
    for name in ("torch", "transformers", "timm", "higher", "torchopt", "betty-ml"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    gpu = {} if device == "cpu" else {"gpu": torch.cuda.get_device_name()}
    return {"cpu": model, **gpu, "python": platform.python_version(), "packages": packages}


def table(report: dict) -> str:
    packages = ", ".join(f"{name} {number}" for name, number in report["machine"]["packages"].items() if number)
    gpu = report["machine"].get("gpu")
    clock = (
        f"elapsed seconds on {gpu}"
        if gpu
        else f"CPU seconds on {report['threads']} thread(s) of {report['machine']['cpu']}"
    )
    lines = [
        "# Cost of one CLP step relative to a plain step",
        "",
        f"Time: {clock}, batch "
        f"{report['batch_size']}, meta batch the same, median of {report['rounds']} rounds (range). "
        f"Memory: peak above the start, batch {report['memory_batch_size']}. Hypergradient: relative "
        f"difference of the perturbation network's gradient from the textbook's, float32.",
        "",
        f"{packages}. `benchmarks/step_cost.py` wrote this and says what the rows are.",
    ]
    for model in report["models"]:
        lines += [
            "",
            f"## {model['title']}, {model['parameters']:,} parameters",
            "",
            "| step | time, × plain | seconds | memory, × plain | MiB | hypergradient |",
            "|---|---|---|---|---|---|",
        ]
        plain_memory = model["methods"].get("plain", {}).get("memory")
        for name, row in model["methods"].items():
            errors = [row[key] for key in ("time_error", "memory_error") if key in row]
            if errors:
                lines.append(f"| {name} | fails: {errors[0]} | | | | |")
                continue
            low, high = row["time_ratio_range"]
            memory = f"{row['memory'] / plain_memory:.2f}" if plain_memory else ""
            difference = f"{row['hypergradient_difference']:.0e}" if "hypergradient_difference" in row else ""
            lines.append(
                f"| {name} | {row['time_ratio']:.2f} ({low:.2f}–{high:.2f}) | {row['seconds']:.3f} | {memory} "
                f"| {row['memory']:.0f} | {difference} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--models", nargs="+", choices=ARCHITECTURES, default=CPU_MODELS)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--rounds", type=int, default=15, help="pairs of plain and other steps behind each median")
    parser.add_argument("--batch_size", type=int, default=32, help="training and meta batch for the timings")
    parser.add_argument("--memory_batch_size", type=int, default=64, help="the same for peak memory")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS / "step_cost", help="path without .json and .md")
    parser.add_argument("--measure", choices=("time", "memory"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        return measure(args)

    report = {name: getattr(args, name) for name in ("device", "threads", "rounds", "batch_size", "memory_batch_size")}
    report |= {"machine": machine(args.device), "models": []}
    args.output.parent.mkdir(parents=True, exist_ok=True)
    for name in args.models:
        architecture = ARCHITECTURES[name]
        model = {"title": architecture.title, "parameters": parameter_count(architecture.build()), "methods": {}}
        report["models"].append(model)
        print(f"{model['title']}: {model['parameters']:,} parameters", flush=True)
        for method in args.methods:
            row = {}
            for kind in ("time", "memory"):
                row |= run_in_process(args, name, method, kind)
            model["methods"][method] = row
            print(f"  {method}: {row}", flush=True)
            args.output.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n")
            args.output.with_suffix(".md").write_text(table(report))
    return None


if __name__ == "__main__":
    main()
