"""Pages that MkDocs makes of what lies elsewhere: the reference, of the docstrings; notebooks; tables of results."""

from collections.abc import Iterator
from pathlib import Path

import griffe
import mkdocs_gen_files
import nbformat

ROOT = Path(__file__).parent.parent
RESULT_TITLES = {
    "ablation_waterbirds_like": "What each part of CLP adds, waterbirds_like",
    "cifar100_flip_40_features": "CIFAR-100 with flipped labels, on frozen features",
    "cifar100_longtail_100_features": "CIFAR-100 with a long tail, on frozen features",
    "cifar10_flip_40": "CIFAR-10 with flipped labels, ResNet-20",
    "cifar10_flip_40_features": "CIFAR-10 with flipped labels, on frozen features",
    "cifar10_longtail_10_features": "CIFAR-10 with a mild long tail, on frozen features",
    "cifar10_longtail_100": "CIFAR-10 with a long tail, ResNet-20",
    "cifar10_longtail_100_features": "CIFAR-10 with a long tail, on frozen features",
    "cifar10_uniform_60_features": "CIFAR-10 with uniform noise, on frozen features",
    "embedded": "The embedded birds",
    "group_discovery": "Groups discovered, waterbirds_like",
    "hsfm_speed": "Speed of HSFM",
    "hsfm_waterbirds_like": "HSFM on waterbirds_like",
    "information_dominoes": "Which method for which information, Dominoes",
    "information_embedded": "Which method for which information, the embedded birds",
    "information_superclasses": "Which method for which information, superclasses of CIFAR-100",
    "information_waterbirds_like": "Which method for which information, waterbirds_like",
    "paper_cifar10_flip_40": "The paper's method to the letter, CIFAR-10 with flipped labels",
    "paper_cifar10_longtail_100": "The paper's method to the letter, CIFAR-10 with a long tail",
    "pixel_methods": "The methods of the paper's tables that need pixels, two epochs",
    "precision": "Precision of the hypergradient",
    "waterbirds_like_paper": "The paper's method to the letter, waterbirds_like",
    "reuse_cifar10_flip_40_features": "The look-ahead's gradient as the step's own",
    "scale": "Cost over batch, classes, processes, and on many GPUs",
    "step_cost": "Cost of a step, ResNet-32",
    "step_cost_lite0": "Cost of a step, EfficientNet-Lite0",
    "step_cost_vit_tiny": "Cost of a step, ViT-Tiny",
    "step_cost_h100": "Cost of a step, ResNet-50 on a GPU",
    "step_cost_resnet18": "Cost of a step, ResNet-18",
    "suspect_labels": "Suspect labels, beside cleanlab's",
    "table_2_features": "The methods of the paper's Tables 2, 7 and 8, on frozen features",
    "table_5_features": "The methods of the paper's Table 5, on frozen features",
    "table_6_features": "The methods of the paper's Table 6, on frozen features",
    "waterbirds_like_converged": "The converged look-ahead, waterbirds_like",
    "waterbirds_like_evidence": "Evidence and the converged look-ahead at four epochs, waterbirds_like",
    "waterbirds_like_sweeps": "CLP's settings, one at a time",
    "waterbirds_like_sweeps_three_seeds": "Two characteristics, on three seeds",
}  # the others are called by their heading, or as their file is


def write(path: str, text: str) -> None:
    with mkdocs_gen_files.open(path, "w") as page:
        page.write(text)


def write_reference() -> None:
    """A page for every module of the package; that of a package lists what it exports."""
    nav = mkdocs_gen_files.Nav()
    for module in modules(griffe.load("clp_hf", search_paths=[ROOT])):
        parts = module.path.split(".")
        folder = "/".join(parts[1:])
        if module.is_init_module:
            path = f"{folder}/index.md".removeprefix("/")
            own = [member.name for member in module.members.values() if is_documented(member)]
            text = f"::: {module.path}\n    options:\n      members: {own or 'false'}\n\n{exports(module)}"
        else:
            path, text = f"{folder}.md", f"::: {module.path}\n"
        nav[parts] = path
        write(f"reference/{path}", text)
    write("reference/SUMMARY.md", "".join(nav.build_literate_nav()))


def modules(module: griffe.Module) -> Iterator[griffe.Module]:
    yield module
    for name in sorted(module.modules):
        if not name.startswith("_") and not module.modules[name].is_alias:
            yield from modules(module.modules[name])


def is_documented(member: griffe.Object | griffe.Alias) -> bool:
    """What is defined here, and not imported from a module that has a page of its own."""
    return not member.is_alias and not member.is_module and not member.name.startswith("_") and bool(member.docstring)


def exports(package: griffe.Module) -> str:
    """What `__all__` names, each with the first paragraph of its docstring and a link to where it is defined."""
    rows = []
    for name in sorted(map(str, package.exports or []), key=str.lower):
        target = package[name].final_target if package[name].is_alias else package[name]
        if target.docstring:
            summary = " ".join(target.docstring.value.split("\n\n")[0].split())
            rows.append(f"| [`{name}`][{target.path}] | {summary} |")
        else:
            rows.append(f"| `{name}` | a constant |")
    return "\n".join(["| exported | |", "|---|---|", *rows]) if rows else ""


def write_notebooks() -> None:
    """The notebooks as they were committed, with their outputs."""
    titles = {}
    for source in sorted((ROOT / "notebooks").glob("*.ipynb")):
        write(f"notebooks/{source.name}", source.read_text())
        titles[source.name] = nbformat.read(source, 4).cells[0].source.splitlines()[0].removeprefix("# ")
    write_section(
        "notebooks", "Notebooks", "They run in minutes on a CPU, without a download, and CI runs them.", titles
    )


def write_results() -> None:
    """The tables of the benchmarks, as these wrote them."""
    titles = {}
    folder = ROOT / "benchmarks" / "results"
    tables = (source for source in folder.glob("**/*.md") if source.name != "README.md")
    for source in sorted(tables):
        name = "_".join(source.relative_to(folder).with_suffix("").parts).removesuffix("_table")
        text = source.read_text()
        heading = text.splitlines()[0].removeprefix("# ") if text.startswith("# ") else None
        title = RESULT_TITLES.get(name, heading or name)
        write(f"results/{name}.md", text if heading else f"# {title}\n\n{text}")
        titles[f"{name}.md"] = title
    write_section(
        "results", "Results", "Every table is the file that a benchmark wrote, in `benchmarks/results/`.", titles
    )


def write_section(folder: str, title: str, text: str, titles: dict[str, str]) -> None:
    links = "".join(f"* [{name}]({path})\n" for path, name in titles.items())
    write(f"{folder}/index.md", f"# {title}\n\n{text}\n\n{links}")
    write(f"{folder}/SUMMARY.md", f"* [{title}](index.md)\n{links}")


write_reference()
write_notebooks()
write_results()
