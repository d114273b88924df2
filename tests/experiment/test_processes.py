"""How many processes train: as many as were asked for, and the record says so."""

import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import yaml
from accelerate.commands.launch import launch_command_parser
from test_recipes import grouped, to_folder

from clp_hf.experiment import launch, processes

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "model_name_or_path": "test_resnet", "pretrained": False, "image_size": 32, "per_device_train_batch_size": 4,
    "meta_batch_size": 4, "meta_samples": 2, "max_steps": 2, "eval_steps": 2, "save_steps": 2, "disable_tqdm": True,
    "report_to": "none", "method": "meta_lp", "evidence": "none",
}  # fmt: skip


@pytest.fixture
def alone(monkeypatch, tmp_path):
    """An environment in which no launcher has said anything, and accelerate is not configured."""
    for name in ("ACCELERATE_DYNAMO_MODE", "MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", *processes.MPI_SIZES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "false")
    monkeypatch.setattr("accelerate.commands.config.config_args.default_config_file", str(tmp_path / "none.yaml"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    splits = {name: grouped(n, label=[0, 0, 1, 1]) for name, n in (("train", 5), ("validation", 3))}
    return to_folder(tmp_path_factory.mktemp("processes") / "data", **splits)


@pytest.mark.slow
def test_two_processes_train_on_a_machine_without_gpus(folder, tmp_path):
    """Without `--use_cpu` or `--cpu`, of which the README says nothing."""
    flags = {**SETTINGS, "dataset_name": folder, "output_dir": str(tmp_path)}
    flags = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    words = ["train", "--main_process_port", "0", "--num_processes", "2", "waterbirds"]
    done = subprocess.run(
        [sys.executable, "-m", "clp_hf", *words, *flags], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads((tmp_path / "_run.json").read_text())
    assert (record["cost"]["processes"], record["cost"]["device"]) == (2, "cpu")
    assert record["command"].startswith("clp-hf train --num_processes 2 waterbirds ")
    assert done.stdout.count("| accuracy, %") == 1  # one of them speaks
    assert "no multiple of the 8 of 2 processes' batches" in done.stderr
    assert done.stderr.count("Training 2 steps, ") == 1
    assert "[W" not in done.stderr  # of PyTorch's C++
    assert "OMP_NUM_THREADS" not in done.stderr


def asked(*words) -> Namespace:
    return launch_command_parser().parse_args([*words, "recipe"])


def configuration(tmp_path, **settings):
    content = {"compute_environment": "LOCAL_MACHINE", "distributed_type": "NO", "mixed_precision": "no"}
    content |= {"use_cpu": False, "debug": False, "num_processes": 1, **settings}
    (tmp_path / "accelerate.yaml").write_text(yaml.safe_dump(content))
    return "--config_file", str(tmp_path / "accelerate.yaml")


@pytest.mark.parametrize(
    ("gpus", "words", "config"),
    [
        (0, ("--num_processes", "2"), None),
        (0, ("--cpu", "--num_processes", "2"), None),
        (4, ("--cpu", "--num_processes", "2"), None),
        (0, (), {"num_processes": 2, "distributed_type": "MULTI_CPU"}),
        (4, (), {"num_processes": 2, "distributed_type": "MULTI_GPU", "use_cpu": True}),
        (1, ("--num_processes", "2"), {"use_cpu": True}),
    ],
)
def test_several_processes_on_a_cpu(alone, tmp_path, monkeypatch, gpus, words, config):
    monkeypatch.setattr(processes, "gpus", lambda: gpus)
    args = asked(*words, *(configuration(tmp_path, **config) if config else ()))
    assert processes.start_all(args) == {"ACCELERATE_USE_CPU": "true"}
    assert (args.multi_gpu, args.cpu, args.use_cpu) == (True, False, True)


@pytest.mark.parametrize(("words", "config"), [((), None), (("--cpu",), None), ((), {"use_cpu": True})])
def test_one_process_on_a_cpu_has_all_of_its_cores(alone, tmp_path, monkeypatch, words, config):
    monkeypatch.setattr(processes, "gpus", lambda: 0)
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    args = asked(*words, *(configuration(tmp_path, **config) if config else ()))
    processes.start_all(args)
    assert args.num_cpu_threads_per_process == 6
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    args = asked(*words)
    processes.start_all(args)
    assert args.num_cpu_threads_per_process is None


@pytest.mark.parametrize(
    ("gpus", "configured", "launched"), [(0, False, False), (1, False, False), (2, False, True), (0, True, True)]
)
def test_a_launcher_is_started_for_several_processes_or_a_configuration(
    alone, tmp_path, monkeypatch, gpus, configured, launched
):
    if configured:
        configuration(tmp_path)
    monkeypatch.setattr("accelerate.commands.config.config_args.default_config_file", str(tmp_path / "accelerate.yaml"))
    monkeypatch.setattr(processes, "gpus", lambda: gpus)
    started, here = [], []
    monkeypatch.setattr("accelerate.commands.launch.launch_command", started.append)
    monkeypatch.setattr(launch, "main", here.append)
    launch.launch_recipe(["waterbirds", "--seed", "3"])
    assert (len(started), here) == ((1, []) if launched else (0, [["waterbirds", "--seed", "3"]]))


def test_several_processes_on_gpus(alone, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "gpus", lambda: 2)
    args = asked("--num_processes", "2", *configuration(tmp_path))  # which is of a machine with one
    assert processes.start_all(args) == {}
    assert args.multi_gpu
    with pytest.raises(ValueError, match=r"3 processes were asked for, each of which needs a GPU, .* has 2"):
        processes.start_all(asked("--num_processes", "3"))
    assert processes.start_all(asked("--num_processes", "4", "--num_machines", "2")) == {}


@pytest.mark.parametrize(
    ("words", "config"),
    [
        ((), None),
        (("--num_processes", "1"), None),
        (("--num_processes", "2", "--use_fsdp"), None),
        (("--num_processes", "2", "--mpirun_hostfile", "hosts"), None),
        (("--num_processes", "2"), {"distributed_type": "FSDP"}),
    ],
)
def test_other_launchers_are_left_to_accelerate(alone, tmp_path, monkeypatch, words, config):
    monkeypatch.setattr(processes, "gpus", lambda: 0)
    args = asked(*words, *(configuration(tmp_path, **config) if config else ()))
    before = dict(vars(args))
    assert processes.start_all(args) == {}
    changed = {name for name, value in vars(args).items() if value != before[name]}
    assert changed <= {
        "num_processes",
        "num_machines",
        "mixed_precision",
        "dynamo_backend",
        "num_cpu_threads_per_process",
    }  # accelerate's defaults, said
    assert not args.multi_gpu


def test_a_process_that_accelerate_has_left_alone_says_so(alone, monkeypatch, caplog):
    """What `accelerate launch --cpu --num_processes 2` sets."""
    processes.train_together()
    monkeypatch.setenv("ACCELERATE_DYNAMO_MODE", "default")
    processes.train_together()
    assert not caplog.text
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    processes.train_together()
    assert "asked for several processes, and has started this one alone" in caplog.text


@pytest.mark.parametrize(("gpus", "expected"), [(0, "true"), (2, "false")])
def test_processes_without_gpus_meet_on_the_cpu(alone, monkeypatch, caplog, gpus, expected):
    monkeypatch.setattr(processes, "gpus", lambda: gpus)
    monkeypatch.setenv("WORLD_SIZE", "2")
    processes.train_together()
    assert os.environ["ACCELERATE_USE_CPU"] == expected
    assert not caplog.text
