"""`accelerate launch` on two processes is one process with the joint batch."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.commands.config import load_config_from_file
from distributed_run import CASES, features, outcome, train

import clp_hf

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What two processes left."""
    folder = tmp_path_factory.mktemp("distributed")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
    paths = [str(HERE), str(Path(clp_hf.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [
            *launch,
            str(HERE.parent / "recipes" / "accelerate" / "cpu.yaml"),
            "--main_process_port",
            "0",
            str(HERE / "distributed_run.py"),
            str(folder),
        ],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("name", CASES)
def test_all_processes_hold_the_same(folder, name):
    first, second = (torch.load(folder / f"{name}-{process}.pt")["tensors"] for process in (0, 1))
    assert first.keys() == second.keys()
    for key, tensor in first.items():
        # each process has statistics of batch normalisation of its own, until they are broadcast, and what is its own
        if "running_" not in key and ".own." not in key:
            assert torch.equal(tensor, second[key]), key


@pytest.mark.parametrize("name", [name for name in CASES if not re.search("batch_norm|per_process|resumed", name)])
def test_two_processes_are_one_with_the_joint_batch(folder, tmp_path, name):
    found = torch.load(folder / f"{name}-0.pt")
    expected = outcome(train(name, str(tmp_path), processes=1))
    for key, tensor in expected["tensors"].items():
        torch.testing.assert_close(found["tensors"][key], tensor, rtol=1e-10, atol=1e-10, msg=key)
    assert any("steps_skipped" in entry for entry in found["log"]) == (name == "skipped")
    for ours, theirs in zip(found["log"], expected["log"], strict=True):
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            assert ours[key] == pytest.approx(value, rel=1e-6, abs=1e-9), key


@pytest.mark.parametrize(
    "path", sorted((HERE.parent / "recipes" / "accelerate").glob("*.yaml")), ids=lambda path: path.stem
)
def test_accelerate_reads_every_configuration(path):
    load_config_from_file(str(path))


def test_a_converged_head_is_that_of_processes_with_whole_parameters(folder):
    """Each of them remembers its own images."""
    names = "sharded_converged_per_process", "converged_alike_per_process"
    found, expected = (torch.load(folder / f"{name}-0.pt")["tensors"] for name in names)
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor, rtol=1e-10, atol=1e-10, msg=key)


@pytest.mark.parametrize("process", [0, 1])
@pytest.mark.parametrize("run", ["resumed", "context_shift_resumed", "sharded_resumed"])
def test_two_processes_resume_as_if_nothing_had_happened(folder, run, process):
    """With random infills, of which each process has its own."""
    names = run, f"uninterrupted_{run}"
    found, expected = (torch.load(folder / f"{name}-{process}.pt")["tensors"] for name in names)
    assert found.keys() == expected.keys()
    assert any(".own." in key for key in found) == (run == "context_shift_resumed")
    assert all(torch.equal(tensor, expected[key]) for key, tensor in found.items())


@pytest.mark.parametrize("process", [0, 1])
def test_features_of_two_processes_are_those_of_one(folder, tmp_path, process):
    expected = vars(features(str(tmp_path))[0])
    for found in torch.load(folder / f"features-{process}.pt"):
        torch.testing.assert_close(found, expected)
