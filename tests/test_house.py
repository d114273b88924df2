"""The house as `docs/guides/contributing.md` describes it: who imports whom, how long a file may be, what is named."""

import ast
import importlib
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "clp_hf").rglob("*.py"))
PACKAGES = [path for path in FILES if path.name == "__init__.py"]
GUIDE = (ROOT / "docs" / "guides" / "contributing.md").read_text(encoding="utf-8")
LONGEST_FILE, LONGEST_CLASS = 400, 300  # lines


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_name(path: Path) -> str:
    return relative(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def room(module: str) -> str:
    """The folder or file directly in the package that a module belongs to."""
    return ".".join(module.split(".")[1:2])


def imported(path: Path, of: str = "clp_hf") -> Iterator[str]:
    """The modules of a package that importing this file imports, by name."""
    package = module_name(path) if path.name == "__init__.py" else module_name(path).rpartition(".")[0]

    def visit(statements: list[ast.stmt]) -> Iterator[str]:
        for statement in statements:
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if isinstance(statement, ast.Import):
                yield from (name.name for name in statement.names)
            elif isinstance(statement, ast.ImportFrom):
                source = "." * statement.level + (statement.module or "")
                source = importlib.util.resolve_name(source, package)
                yield from [f"{source}.{name.name}" for name in statement.names] if source == "clp_hf" else [source]
            typing_only = isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test)
            for block in ("body", "handlers", "orelse", "finalbody"):
                if not (typing_only and block == "body"):
                    yield from visit(getattr(statement, block, []))

    return (name for name in visit(ast.parse(path.read_text()).body) if name.split(".")[0] == of)


@pytest.fixture(scope="module")
def rooms() -> dict[str, set[str]]:
    """Which rooms each room imports."""
    known = {room(module_name(path)) for path in FILES}
    graph = defaultdict(set)
    for path in FILES:
        here = room(module_name(path))
        graph[here] |= {there for there in map(room, imported(path)) if there in known - {here, ""}}
    return graph


def modules_after(*names: str) -> set[str]:
    """What a new process has imported after it has imported these."""
    program = f"import sys, {', '.join(names)}; print(*sys.modules)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert not done.returncode, done.stderr
    return set(done.stdout.split())


# ---- imports ---------------------------------------------------------------------------------------------------------


def test_the_method_is_torch_alone():
    method = ("algorithm", "bilevel", "causal", "losses", "perturbation")
    assert not {"transformers", "sklearn"} & modules_after(*(f"clp_hf.{name}" for name in method))


def test_the_arguments_pull_in_no_more_than_the_method():
    names = modules_after("clp_hf.training_args")
    mine = {name for name in names if name.startswith("clp_hf.")}
    assert "sklearn" not in names
    assert {room(name) for name in mine} <= {
        "argument_checks", "bilevel", "causal", "hub", "losses", "metrics", "modeling", "perturbation", "schedules",
        "training_args", "utils",
    }  # fmt: skip
    assert {name for name in mine if room(name) == "hub"} == {"clp_hf.hub", "clp_hf.hub.arguments"}
    assert not {name for name in mine if name.startswith(("clp_hf.modeling.loading", "clp_hf.modeling.timm_models"))}


def test_scikit_learn_waits_for_the_method_that_needs_it():
    """Half a second; the files that import it at once are imported for what they do alone."""
    found = {path for path in FILES if any(imported(path, of="sklearn"))}
    assert set(map(relative, found)) == {"clp_hf/hsfm/analysis.py", "clp_hf/inspection/probe.py"}


def test_there_is_no_circle_of_imports(rooms):
    TopologicalSorter(rooms).prepare()  # raises CycleError, which names it


def test_imports_go_down_the_layers_of_the_guide(rooms):
    layers = re.search(r"```text\n(.*?)```", GUIDE, re.DOTALL)[1].splitlines()
    height = {name: -number for number, layer in enumerate(layers) for name in layer.split()}
    # the package itself and its command, and what others import by an outer name
    beside = {"", "__main__", "networks", "evaluate_metrics"}
    assert set(rooms) - set(height) == beside
    upwards = {(here, there) for here in set(rooms) - beside for there in rooms[here] if height[there] >= height[here]}
    assert not upwards


# ---- size ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_neither_files_nor_classes_are_long(path):
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST_FILE
    classes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef)]
    assert not [node.name for node in classes if node.end_lineno - node.lineno + 1 > LONGEST_CLASS]


# ---- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PACKAGES, ids=relative)
def test_what_a_package_exports_is_there(path):
    package = importlib.import_module(module_name(path))
    exported = getattr(package, "__all__", [])
    assert len(set(exported)) == len(exported)
    for name in exported:
        assert getattr(package, name) is not None


def test_the_guide_names_every_folder():
    folders = {path.parent.relative_to(ROOT / "clp_hf").as_posix() for path in PACKAGES} - {"."} | {"evaluate_metrics"}
    assert not {folder for folder in folders if f"`{folder}/`" not in GUIDE}


def test_the_files_that_the_guide_names_are_there():
    named = set(re.findall(r"`([\w./]+(?:\.py|/))`", GUIDE))
    assert len(named) > 30
    assert not {name for name in named if not any((base / name).exists() for base in (ROOT, ROOT / "clp_hf"))}


def test_the_registries_that_the_guide_names_are_where_it_says():
    rows = re.findall(r"^\| a[^|]*\|([^|]*)\|([^|]*)\|", GUIDE, re.MULTILINE)
    assert len(rows) >= 10
    for file_cell, registry_cell in rows:
        files = re.findall(r"`([\w/]+\.py)`", registry_cell) or re.findall(r"`([\w/]+\.py)`", file_cell)
        for registry in re.findall(r"`([A-Z_]+)`", registry_cell):
            sources = [*files, "experiment/methods.py"]
            assert any(registry in vars(module_of(name)) for name in sources), registry


def module_of(file: str):
    return importlib.import_module(module_name(ROOT / "clp_hf" / file))
