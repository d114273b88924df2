"""Files that are there complete or not at all, however the writing of them ends."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def write_whole(path: str | os.PathLike) -> Iterator[Path]:
    """Write to the path this gives: where nothing is raised it takes the place of `path`, else it is removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{uuid.uuid4().hex}.part")
    part.touch(exist_ok=False)  # as readable for others as the user's files are, which those of `tempfile` are not
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
