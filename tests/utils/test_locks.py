"""One process at a time in a folder; who was killed is in no one's way."""

import multiprocessing
import os
import re
import signal
import socket
import time

import pytest

from clp_hf.segmentation import MaskArguments, make_masks
from clp_hf.utils.locks import LOCK, only_one


def hold(folder, ready, end, name):
    with only_one(folder, "a training run", name):
        ready.set()
        if end == "kill":
            # a worker outlives it for a while
            multiprocessing.get_context("fork").Process(target=time.sleep, args=(3,)).start()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)


def process_in(folder, end, name=LOCK):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=hold, args=(folder, ready, end, name))
    process.start()
    ready.wait(30)
    return process


@pytest.mark.parametrize(("what", "name"), [("train", LOCK), ("masks", ".lock")])
def test_a_second_one_is_told_of_the_first(make_trainer, tmp_path, what, name):
    folder = tmp_path / "run"
    process = process_in(folder, "wait", name)
    told = rf"in use by a training run, process {process.pid} on {re.escape(socket.gethostname())}"
    try:
        second = {
            "train": lambda: make_trainer().train(),
            "masks": lambda: make_masks(MaskArguments("embedded", output_dir=str(folder))),
        }[what]
        with pytest.raises(ValueError, match=told):
            second()
    finally:
        process.kill()
        process.join()
    assert sorted(path.name for path in folder.iterdir()) == [name, f"{name}_holder"]


def test_a_killed_one_is_in_no_ones_way(tmp_path):
    process_in(tmp_path, "kill").join()
    with only_one(tmp_path, "a training run"):
        pass


def test_one_after_the_other(tmp_path):
    for _ in range(2):
        with only_one(tmp_path, "a training run"):
            pass
    with pytest.raises(KeyError), only_one(tmp_path, "a training run"):
        raise KeyError
    with only_one(tmp_path, "a training run"):
        pass
