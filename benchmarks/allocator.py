"""What keeping freed memory saves a run on a CPU (`clp_hf.utils.allocator`): CPU seconds and peak memory.

    python benchmarks/allocator.py --rounds 3 --results benchmarks/results/allocator.json

The first steps of `clp-hf train waterbirds` on the embedded birds, from the start of the command to its end, as it is
and with the allocator left alone (any `MALLOC_…` in the environment does that), in turn. (Linux with glibc)
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

LEFT_ALONE = {"MALLOC_PERTURB_": "0"}  # which by itself changes nothing


def run(environment: dict[str, str], steps: int) -> dict[str, float]:
    """CPU seconds, MiB at the peak and page faults of one command."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["train", "waterbirds", "--max_steps", str(steps), "--output_dir", folder]
        process = subprocess.Popen(
            [sys.executable, "-m", "clp_hf", *words], env=os.environ | environment, stdout=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"clp-hf {' '.join(words)} failed.")
    return {
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mebibytes": usage.ru_maxrss / 1024,
        "page_faults": usage.ru_minflt,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--results", type=Path, required=True)
    args = parser.parse_args()
    rows = {"kept": [], "left_alone": []}
    run({}, 1)  # draws the birds, where they are not kept yet
    for _ in range(args.rounds):
        for name, environment in (("kept", {}), ("left_alone", LEFT_ALONE)):
            rows[name].append(run(environment, args.steps))
            print(name, rows[name][-1], flush=True)
    medians = {name: {key: statistics.median(row[key] for row in own) for key in own[0]} for name, own in rows.items()}
    args.results.write_text(json.dumps({"steps": args.steps, "medians": medians, "rounds": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
