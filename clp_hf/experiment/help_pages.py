"""Write `help_pages.json`, from which `--help` is read: `python -m clp_hf.experiment.help_pages`.

To be run when an option, its text or a default has changed; a test says so.
"""

import io
from contextlib import redirect_stdout
from pathlib import Path

from .help import HELP_ALL, PAGES, HelpShown, Page, store
from .launch import NOT_TRAINING, command_of, recipes, run_here


def all_pages() -> dict[str, Page]:
    """The page of every recipe, and of every value of an option that the others, or their defaults, depend on."""
    from .repairs import REPAIRS

    keys = [(name,) for name in [*recipes(), *NOT_TRAINING]]
    keys += [("repair", "--method", name) for name in REPAIRS]
    pages = {key: _page(*key) for key in keys}
    for (name, *_), page in list(pages.items()):
        if any(option.home == "method" for option in page.options.values()) and "preset" in page.options:
            key = (name, "--preset", "paper")
            pages[key] = _page(*key)
    return {" ".join(key): page for key, page in pages.items()}


def _page(name: str, *words: str) -> Page:
    with redirect_stdout(io.StringIO()):
        try:
            run_here(name, [*words, HELP_ALL[0]], command_of(name))
        except HelpShown as shown:
            return shown.page
    raise AssertionError(f"{name} shows no help")


def write_pages(path: Path = PAGES) -> Path:
    """Write the file."""
    path.write_text(store(all_pages()), encoding="utf-8")
    return path


if __name__ == "__main__":
    print(write_pages())
