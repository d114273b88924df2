"""The C library's allocator, as training on a CPU wants it."""

import ctypes
import os
import sys

# Of glibc's malloc.h. It takes no larger threshold of the first kind, no larger number of the second.
M_MMAP_THRESHOLD, LARGEST_THRESHOLD = -3, 32 * 2**20
M_TRIM_THRESHOLD, LARGEST_NUMBER = -1, 2**31 - 1


def keep_freed_memory() -> None:
    """Have what one step frees wait for the next one, for the rest of this process; on Linux with glibc.

    Given back to the system, its pages come back zeroed one by one: five times as many page faults, which are 3 to 4 %
    of the CPU seconds of the recipe `waterbirds`, for 12 % more memory at its peak (`benchmarks/allocator.py`), and
    more of those where a step looks ahead with the full network. Who sets `MALLOC_…` in the environment has decided
    otherwise.
    """
    if not sys.platform.startswith("linux") or any(name.startswith("MALLOC_") for name in os.environ):
        return
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if set_option is not None:
        set_option(M_MMAP_THRESHOLD, LARGEST_THRESHOLD)
        set_option(M_TRIM_THRESHOLD, LARGEST_NUMBER)
