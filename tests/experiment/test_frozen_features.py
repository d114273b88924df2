"""`compare.py --frozen_features`: methods of two stages and of causal images, on features of images generated here."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from test_compare import NOISE, command, compare, data, in_this_process  # noqa: F401  # and it makes benchmarks known
from test_feature_sets import features, make  # noqa: F401

from clp_hf import CLPTrainingArguments
from clp_hf.causal import CausalAugmentation, Role
from clp_hf.data import embedded_birds
from clp_hf.experiment import staging
from clp_hf.features import CausalImages

from causal_versions import DRAWS, CausalVersions, Needed, VersionAugmentation, causal_versions  # isort: skip
from frozen_features import FeatureDataset, freeze  # isort: skip
from variants import VARIANTS  # isort: skip


@pytest.fixture
def on_features(command, in_this_process, tmp_path):  # noqa: F811
    """Run these methods; their records by method, and the number of feature sets that are kept."""

    def run(*methods, flags=(*NOISE, "--max_train_samples", "60")):
        kept = tmp_path / "features"
        command(*flags, "--methods", *methods, "--seeds", "0", "--frozen_features", str(kept))
        compare.main()
        records = {method: json.loads((tmp_path / "results" / f"{method}-0.json").read_text()) for method in methods}
        return records, len(list(kept.iterdir()))

    return run


def test_methods_of_two_stages(on_features, monkeypatch):
    learned, with_learned = [], staging.with_learned
    monkeypatch.setattr(staging, "with_learned", lambda *given: learned.append(with_learned(*given)) or learned[-1])
    records, kept = on_features("jtt", "glc", "crt")
    assert kept == 4  # training, meta, validation and test images: nothing but what the others have
    for record in records.values():
        assert record["model"] == "perceptron on the features of cifar_resnet20"
        assert 0 <= record["metrics"]["test_accuracy"] <= 1
    by_glc, by_jtt = sorted(learned, key=lambda images: images.corruption is None)
    assert sorted(set(by_jtt.weight.tolist())) == [1, 100]
    assert by_glc.corruption.shape == (3, 3)
    assert len(by_glc) == len(by_jtt) + 6
    assert by_glc.group.tolist() == [0] * len(by_jtt) + [1] * 6  # the meta images are trusted
    assert by_glc[-1]["pixel_values"].shape == (64, 1, 1)


def test_methods_of_causal_images(on_features):
    records, kept = on_features("clp", "background_swap", 'clp+evidence=["background"]+train_infills=["mix_rand"]')
    # As they are: four sets. Of meta images one tiled and three mixed versions; of training images three mixed ones,
    # and with the evidence the tiled one of each and of the image itself.
    assert kept == 4 + 1 + DRAWS + DRAWS + 1 + DRAWS
    swapped = records["background_swap"]
    assert swapped["settings"]["train_infills"] == ["mix_rand"]
    for record in records.values():
        assert record["parameters"] == 64 * 256 + 256 + 2 * 256 + 256 * 3 + 3
        assert record["without_masks"] == {}


def items(roles, width=1, mask=None):
    """Features that tell their column, three an image; the first columns of what an augmentation makes of them."""
    augmentation = VersionAugmentation(
        Needed(["tile"], ["mix_rand", "random"]),
        {Role.COUNTERFACTUAL: [1], Role.FACTUAL: [2, 4, 6, 8]},
        width,
    )
    role = torch.tensor(roles)
    pixel_values = torch.arange(10.0).expand(len(role), 3, 1, 10)
    if mask is None:
        mask = torch.zeros(len(role), 1, 1, 10)
        mask[..., 0] = 1
    shown, role = augmentation(
        pixel_values, torch.zeros_like(role), mask, role, generator=torch.Generator().manual_seed(0)
    )
    assert shown.shape == pixel_values.shape
    assert torch.equal(shown, shown[:, :1].expand_as(shown))  # features keep together
    return shown[:, 0, 0], role


def test_the_version_of_the_wanted_role_is_shown():
    shown, role = items([0, 1, 2] * 100)
    assert role.tolist() == [0, 1, 2] * 100
    assert set(shown[0::3, 0].tolist()) == {0}
    assert set(shown[1::3, 0].tolist()) == {1}
    counts = {start: (shown[2::3, 0] == start).sum().item() for start in (2, 4, 6, 8)}
    assert sum(counts.values()) == 100
    assert min(counts.values()) > 10
    assert torch.equal(shown[:, 1:], torch.arange(1.0, 10).expand(300, 9))


def test_the_background_of_a_factual_version_comes_with_it():
    shown, _ = items([0, 1, 2] * 20, width=2)
    assert set(shown[2::3, 1].tolist()) == {3, 5, 7, 9}
    assert torch.equal(shown[2::3, 1], shown[2::3, 0] + 1)
    assert shown[:2, :2].tolist() == [[0, 1], [1, 1]]


def test_images_without_foreground_or_background_are_originals():
    shown, role = items([1, 2], mask=torch.zeros(2, 1, 1, 10))
    assert role.tolist() == [0, 0]
    assert shown[:, 0].tolist() == [0, 0]


def test_versions_are_features_of_causal_images(make, tmp_path):  # noqa: F811
    birds = embedded_birds(24, 16, 8, image_size=32)
    experiment, plain = (make(birds, size=32) for _ in range(2))
    args = replace(experiment.args, evidence=["background"], train_infills=["mix_rand"])
    images = type(experiment.train)(experiment.splits["train"], experiment.validation.transform)
    mean, std = (getattr(images.transform, name).flatten().tolist() for name in ("mean", "std"))
    tiled = CausalImages(images, CausalAugmentation(["tile"], [], mean, std), Role.COUNTERFACTUAL)
    mixed = CausalImages(images, CausalAugmentation([], ["mix_rand"], mean, std), Role.FACTUAL, draw=1)
    background = CausalImages(mixed, CausalAugmentation(["tile"], [], mean, std), Role.COUNTERFACTUAL)
    expected = [
        features(experiment, torch.stack([item["pixel_values"] for item in source.__getitems__(range(8))]))
        for source in (images, tiled, mixed, background)
    ]
    freeze(plain, str(tmp_path), replace(args, meta_every=0, train_infills=[], evidence=[]))
    freeze(experiment, str(tmp_path), args)
    found = torch.stack([experiment.train[index]["pixel_values"] for index in range(8)])
    assert found.shape == (8, 64, 1, 1 + 1 + 2 * DRAWS)
    for column, rows in zip((0, 1, 4, 5), expected, strict=True):
        torch.testing.assert_close(found[:, :, 0, column], rows)
    assert experiment.meta[0]["pixel_values"].shape == (64, 1, 1 + 1 + DRAWS)
    assert experiment.meta[0]["mask"].tolist() == [[[1.0] + [0.0] * (1 + DRAWS)]]
    # Other methods train on the same as if there were none.
    for index in range(len(plain.train)):
        item = plain.train[index]
        assert set(item) == {"pixel_values", "labels", "group"}
        assert torch.equal(item["pixel_values"], experiment.train[index]["pixel_values"][..., :1])


def test_what_a_method_needs_of_which_images():
    def needed(method):
        settings = {name: value for name, value in VARIANTS[method].items() if name != "rand_augment"}
        found = Needed.of(replace(CLPTrainingArguments("x"), **settings))
        return {name: (list(part.counterfactual), list(part.factual)) for name, part in found.items() if part}

    assert needed("erm") == needed("meta_lp") == needed("jtt") == {}
    assert needed("clp") == {"meta": (["tile"], ["mix_rand"])}
    assert needed("clp_cf_grey") == {"meta": (["grey"], [])}
    assert needed("background_swap") == {"train": ([], ["mix_rand"])}


def test_images_that_join_others_with_versions_stay_as_they_are():
    def images(n, versions=None):
        found = type("Found", (), {"features": torch.rand(n, 2), "labels": torch.zeros(n).long(), "groups": None})
        source = type("Source", (), {"noisy": None, "name": "x"})
        return FeatureDataset(found, source, versions)

    train = images(3, CausalVersions(torch.rand(3, 4, 2), torch.ones(3, dtype=torch.bool), None))
    other = images(2)
    joint = train.joined(other, "both")
    assert (len(joint), joint.name) == (5, "both")
    assert torch.equal(joint[1]["pixel_values"], train[1]["pixel_values"])
    assert torch.equal(joint[4]["pixel_values"], other[1]["pixel_values"].expand(-1, -1, 5))
    assert [joint[index]["mask"].sum().item() for index in range(5)] == [1, 1, 1, 0, 0]


def test_without_masks_there_are_no_versions(make, data, tmp_path):  # noqa: F811
    images = make(dataset_name=data).validation
    assert causal_versions(images, Needed(["tile"], []), CLPTrainingArguments(str(tmp_path)), None) is None


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--methods", "erm", "clp+saliency_weight=0.2"], r"clp\+saliency_weight=0.2 \(saliency is a gradient in the"),
        (["--methods", "clp_f_fgsm", "rand_augment"], r"clp_f_fgsm \(fgsm attacks .*; rand_augment \(rand_augment ch"),
        (["--methods", "csa"], r"csa \(a context lies somewhere in an image, and features have no places\)"),
        (["--methods", "erm", "--rand_augment", "true"], r"erm \(rand_augment changes the pixels"),
        (["--methods", "erm", "--attribution", "true"], "no image to look at: leave attribution"),
    ],
)
def test_what_needs_pixels_is_refused_before_anything_runs(command, flags, message):  # noqa: F811
    command("--frozen_features", "x", *flags)
    with pytest.raises(ValueError, match=message):
        compare.parse()


def test_causal_images_without_meta_set_are_refused(on_features):
    with pytest.raises(ValueError, match=r"no meta set yet\. Have one taken out of a split: --meta_split train"):
        on_features("clp", flags=("--meta_split", "none"))


@pytest.mark.parametrize(("table", "left"), [(2, {"csa"}), (5, set()), (6, set())])
def test_tables_have_all_rows_that_work(data, tmp_path, monkeypatch, table, left):  # noqa: F811
    flags = ["--results", str(tmp_path), "--dataset_name", data, "--frozen_features", "x", "--use_cpu", "true"]
    monkeypatch.setattr(sys, "argv", ["compare.py", "--table", str(table), *flags])
    comparison = compare.parse()
    assert set(comparison.left_out) == left
    assert comparison.methods == [name for name in compare.TABLES[table].methods if name not in left]


def test_a_table_tells_which_rows_it_leaves_out(in_this_process, data, tmp_path, monkeypatch, capsys):  # noqa: F811
    table = compare.TABLES[2]._replace(rows={"CE": "erm", "CSA": "csa", "ACE": "ace"})
    monkeypatch.setitem(compare.TABLES, 2, table)
    flags = [
        "--table", "2", "--results", str(tmp_path / "results"), "--dataset_name", data, "--seeds", "0", "--use_cpu",
        "true", "--image_size", "16", "--max_steps", "2", "--frozen_features", str(tmp_path / "features"),
        "--imbalance_ratio", "5", "--meta_samples", "2",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["compare.py", *flags])
    compare.main()
    assert in_this_process == [("erm", 0)]
    told = "Left out, on frozen features: csa (a context lies somewhere in an image, and features have no places)."
    assert capsys.readouterr().out.startswith(f"{told}\n")
    assert told in (tmp_path / "results" / "table.md").read_text()
    assert told in compare.joined(2, {"a": compare.parse().records()}, compare.parse().left_out)
