"""One process at a time in a folder."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = "_lock"  # names with a leading _ are not pushed to the Hub


@contextmanager
def only_one(folder: str | os.PathLike, what: str, name: str = LOCK) -> Iterator[None]:
    """Have `folder` to oneself, inside. The lock is the operating system's: a killed process holds none.

    Args:
        folder: made where there is none.
        what: works there, for the message to another process.
        name: of the file that is locked, which stays there; the same for all who must not meet.

    Raises:
        ValueError: another process has it; the message names that process and its host.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(folder / name), folder / f"{name}_holder"
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        other = holder.read_text().strip() if holder.is_file() else "another process"
        raise ValueError(
            f"{folder} is in use by {other}. Wait until it has ended, or choose another output_dir: two at once would "
            "delete each other's files."
        ) from error
    try:
        holder.write_text(f"{what}, process {os.getpid()} on {socket.gethostname()}\n")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()
