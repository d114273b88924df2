"""`compare.py --table`: what each table of the paper names by itself, and small ones end to end."""

import json
import sys

import pytest
from test_compare import command, compare, data, in_this_process  # noqa: F401  # and it makes benchmarks known
from test_recipes import SMALL, coloured, grouped, named, to_folder

from clp_hf.experiment import PAPER

import paper_tables  # isort: skip
from variants import VARIANTS  # isort: skip

TABLES = paper_tables.TABLES
# Rows without a method. ACE needs a generative explainer.
MISSING = {"ACE"}


def test_every_row_but_these_has_a_method():
    assert {row for table in TABLES.values() for row in table.missing} == MISSING
    sizes = {number: len(table.rows) for number, table in TABLES.items()}
    assert sizes == {2: 15, 3: 10, 5: 15, 6: 13, 7: 15, 8: 15}  # as many as the paper has
    for table in TABLES.values():
        assert len(table.methods) == len(set(table.methods)) == len(table.rows) - len(table.missing)
        assert {"erm", "class_balanced", "group_reweighting", "clp_cf_grey"} & set(table.methods)


def test_the_infills_of_table_3():
    def infills(row):
        settings = VARIANTS[TABLES[3].rows[row]]
        return settings["counterfactual_infills"], settings["factual_infills"]

    assert infills("CF(CAGAN)") == (["inpaint"], [])
    assert infills("F(Mix-Rand)") == ([], ["mix_rand"])
    assert infills("CF(Tile)+F(Shuffle)") == (["tile"], ["shuffle"])
    assert infills("CF(CAGAN)+F(Random)") == (["inpaint"], ["random"])
    assert VARIANTS[TABLES[3].rows["F(FGSM)"]]["fgsm_epsilon"] == PAPER["fgsm_epsilon"] == 0.5


@pytest.mark.parametrize(
    ("number", "given", "parts"),
    [
        (2, {}, ["cifar10_100", "cifar10_10", "cifar100_100", "cifar100_10"]),
        (2, {"dataset_name": "my/images"}, ["100", "10"]),
        (3, {"dataset_name": "uoft-cs/cifar100", "imbalance_ratio": 50.0}, [""]),
        (5, {"dataset_name": "x"}, ["flip_0.2", "flip_0.4", "uniform_0.4", "uniform_0.6"]),
        (5, {"dataset_name": "x", "noise": "flip"}, ["0.2", "0.4"]),
        (5, {"dataset_name": "x", "noise_rate": 0.4}, ["flip", "uniform"]),
        (5, {"dataset_name": "x", "noise": "uniform", "noise_rate": 0.8}, [""]),
        (6, {}, [""]),
        (7, {}, ["clt", "glt", "alt"]),
        (8, {"protocol": "glt"}, [""]),
    ],
)
def test_what_the_command_line_leaves_open_is_run(monkeypatch, number, given, parts):
    found = TABLES[number].parts(TABLES[number].scenario, given)
    assert list(found) == parts
    for flags in found.values():
        assert not {f"--{name}" for name in given} & set(flags)


def test_a_table_names_scenario_and_methods(data, tmp_path, monkeypatch):  # noqa: F811
    flags = ["--results", str(tmp_path), "--dataset_name", data, "--use_cpu", "true"]
    for number in (2, 3, 5, 6):
        monkeypatch.setattr(sys, "argv", ["compare.py", "--table", str(number), *flags])
        comparison = compare.parse()
        assert (comparison.benchmark.scenario, comparison.methods) == (TABLES[number].scenario, TABLES[number].methods)
    features = ["--frozen_features", str(tmp_path / "features")]
    monkeypatch.setattr(sys, "argv", ["compare.py", "--table", "5", *flags, *features])
    assert compare.parse().methods == TABLES[5].methods
    monkeypatch.setattr(sys, "argv", ["compare.py", "--table", "5", *flags, "--preset", "paper", "--noise", "uniform"])
    assert compare.parse().model == "wrn28_10"
    monkeypatch.setattr(sys, "argv", ["compare.py", "--table", "4", *flags])
    with pytest.raises(SystemExit):
        compare.parse()


def test_settings_side_by_side(command, in_this_process, tmp_path, capsys):  # noqa: F811
    folder = to_folder(tmp_path / "images", train=coloured(120), test=coloured(10, seed=1))
    flags = ["--table", "2", "--dataset_name", folder, "--methods", "erm", "class_balanced", "--seeds", "0"]
    command(*flags, "--max_steps", "2", scenario="cifar_longtail")
    compare.main()
    results = tmp_path / "results"
    assert sorted(path.name for path in results.iterdir()) == ["10", "100", "table.md"]
    text = (results / "table.md").read_text()
    assert capsys.readouterr().out.endswith(text)
    lines = text.splitlines()
    assert "Not there" not in lines[0]
    assert lines[2] == "| method | 100 test error | 10 test error |"
    assert [line.split(" | ")[0] for line in lines[4:]] == ["| erm", "| class_balanced (Class-Balanced CE loss)"]
    record = json.loads((results / "10" / "erm-0.json").read_text())
    assert record["settings"]["imbalance_ratio"] == 10
    error = 100 * (1 - record["metrics"]["test_accuracy"])
    assert f"{error:.1f}" in lines[4].split(" | ")[2]
    assert "| test error | test |" in (results / "10" / "table.md").read_text()


def test_precision_and_methods_of_two_stages(in_this_process, tmp_path, monkeypatch):  # noqa: F811
    def superclasses(per_class, seed):
        images = named(per_class, ["bee", "oak", "ant", "elm"], seed)
        return images.add_column("coarse_label", [("insect", "tree")[label % 2] for label in images["label"]])

    folder = to_folder(tmp_path / "data", train=superclasses(40, 0), test=superclasses(6, 1))
    flags = [
        "--table", "7", "--scenario", "cifar_superclasses", "--protocol", "alt", "--attribute_imbalance", "9",
        "--dataset_name", folder, "--results", str(tmp_path / "results"), "--methods", "crt", "rand_augment",
        "--seeds", "0", "--max_steps", "2", "--meta_samples", "2", "--use_cpu", "true", *SMALL,
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["compare.py", *flags])
    compare.main()
    header = (tmp_path / "results" / "table.md").read_text().splitlines()[2]
    assert "| test | test precision | test worst group |" in header
    assert json.loads((tmp_path / "results" / "rand_augment-0.json").read_text())["settings"]["rand_augment"] is True
    compare.main()
    assert sorted(in_this_process) == [("crt", 0), ("rand_augment", 0)]  # and nothing runs twice


def test_own_birds_without_masks(in_this_process, tmp_path, monkeypatch):  # noqa: F811
    columns = {"label": ["landbird"] * 2 + ["waterbird"] * 2, "place": ["land", "water"] * 2}
    sizes = {"train": 8, "validation": 4, "test": 4}
    folder = to_folder(tmp_path / "birds", **{name: grouped(n, **columns) for name, n in sizes.items()})
    flags = [
        "--table", "6", "--dataset_name", folder, "--results", str(tmp_path / "results"), "--methods", "group_dro",
        "clp", "--seeds", "0", "--max_steps", "2", "--meta_samples", "2", "--use_cpu", "true", *SMALL,
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["compare.py", *flags])
    compare.main()
    text = (tmp_path / "results" / "table.md").read_text()
    assert "| method | seeds | test average | test worst group |" in text
    chosen = json.loads((tmp_path / "results" / "clp-0.json").read_text())["without_masks"]
    assert (chosen["evidence"], chosen["factual_infills"]) == (["attribute"], [])
    assert json.loads((tmp_path / "results" / "group_dro-0.json").read_text())["without_masks"] == {}
    compare.main()
    assert sorted(in_this_process) == [("clp", 0), ("group_dro", 0)]


def test_a_table_by_hand():
    def records(**errors):
        return [{"method": name, "seed": 0, "metrics": {"test_accuracy": 1 - error}} for name, error in errors.items()]

    text = paper_tables.joined(2, {"a": records(erm=0.5, isda=0.25), "b": records(isda=0.125, clp=0.5)})
    assert text.splitlines()[2:] == [
        "| method | a test error | b test error |",
        "|---|---:|---:|",
        "| erm | <u>50.0</u> |  |",
        "| isda (ISDA) | **25.0** | **12.5** |",
        "| clp (CLP) |  | <u>50.0</u> |",
    ]
