"""What is freed stays with the process, where that was asked for."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
from clp_hf.utils.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def step():
    activations = [torch.ones(2**20) for _ in range(20)]  # 4 MiB each, which malloc gives back by itself
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
before = faults()
for _ in range(5):
    step()
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's allocator")
@pytest.mark.parametrize(
    ("words", "environment", "kept"),
    [(["keep"], {}, True), (["leave"], {}, False), (["keep"], {"MALLOC_TRIM_THRESHOLD_": "131072"}, False)],
)
def test_pages_are_not_fetched_anew(words, environment, kept, monkeypatch):
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    pages = int(subprocess.check_output([sys.executable, "-c", PROGRAM, *words], text=True))
    assert (pages < 10_000) == kept, pages  # of 100 tensors of 1,024 pages each
