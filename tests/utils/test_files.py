"""Files are there whole or not at all, and as others may read them."""

import os

import pytest

from clp_hf.utils.files import write_whole


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_a_file_is_readable_as_those_that_the_user_writes(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        with write_whole(tmp_path / "folder" / "page.html") as part:
            part.write_text("a page")
    finally:
        os.umask(before)
    (page,) = (tmp_path / "folder").iterdir()
    assert page.read_text() == "a page"
    assert page.stat().st_mode & 0o777 == mode


def test_what_was_there_stays_where_writing_fails(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("before")

    def write():
        with write_whole(path) as part:
            part.write_text("half of a")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write()
    assert [file.read_text() for file in tmp_path.iterdir()] == ["before"]
