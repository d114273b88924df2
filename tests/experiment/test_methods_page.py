"""The page of methods and the help tell of every method there is, and of the same needs."""

import re
from pathlib import Path

from clp_hf.experiment import METHODS
from clp_hf.experiment.methods import STAGED
from clp_hf.experiment.words import CHOICES, NEEDS
from clp_hf.losses import TRAINING_LOSSES, needs_groups

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "methods.md"


def sections():
    """By heading, what is in it."""
    parts = re.split(r"^## (.+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows(section):
    return [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]


def test_the_page_has_every_method_under_what_it_needs():
    tables = sections()
    found = {need: [row[0].strip("`") for row in rows(tables[need.capitalize()])] for need in NEEDS["method"]}
    assert found == {need: list(names) for need, names in NEEDS["method"].items()}
    assert sorted(name for names in found.values() for name in names) == sorted({*METHODS, *STAGED})


def test_every_row_has_source_and_cost():
    for section in sections().values():
        for row in rows(section):
            assert len(row) >= 3
            assert row[1]
            assert re.match(r"[1-9]\b|as `clp`", row[2])  # in plain steps


def test_what_a_method_needs_is_what_its_settings_are():
    needs = {name: need for need, names in NEEDS["method"].items() for name in names}
    for name, settings in METHODS.items():
        loss, sampling = settings.get("training_loss"), settings.get("train_sampling")
        groups = sampling in ("group", "group_subset", "expanding") or (loss in TRAINING_LOSSES and needs_groups(loss))
        assert (needs[name] == "a meta set") == (settings.get("meta_every", 1) > 0)
        assert (needs[name] == "the group of every training image") == groups
        assert (needs[name] == "the mask of every training image") == bool(settings.get("train_infills"))
        assert name in CHOICES["method"]
