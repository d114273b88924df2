"""`benchmarks/feature_sets.py` on generated data, and that frozen features see all splits as evaluation does."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_recipes import coloured, grouped, to_folder

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import feature_sets  # noqa: E402
from frozen_features import freeze  # noqa: E402

from clp_hf import CLPTrainingArguments  # noqa: E402
from clp_hf.data import embedded_birds  # noqa: E402
from clp_hf.experiment import DataArguments, Experiment, ModelArguments  # noqa: E402
from clp_hf.features import extraction  # noqa: E402
from clp_hf.modeling import find_classifier_head, forward_with_features  # noqa: E402


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """An experiment on a data set, with a ResNet-20."""
    out = str(tmp_path_factory.mktemp("out"))

    def make(splits=None, size=16, seed=0, **data):
        args = CLPTrainingArguments(out, seed=seed, meta_samples=2, per_device_eval_batch_size=8, use_cpu=True)
        args.report_to, args.disable_tqdm = [], True
        model = ModelArguments(model_name_or_path="cifar_resnet20", freeze_batch_norm=False)
        return Experiment(DataArguments(image_size=size, **data), model, args, splits=splits)

    return make


@pytest.fixture(scope="module")
def birds():
    return embedded_birds(60, 24, 16, image_size=32)


@pytest.fixture(scope="module")
def found(make, birds, tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    experiment = make(birds, size=32)
    return experiment, folder, feature_sets.feature_sets(experiment, folder, copies=2)


def features(experiment, pixels):
    model = experiment.build_model().eval()
    head = find_classifier_head(model, pixels[:2])[1]
    with torch.no_grad():
        return forward_with_features(model, head, pixels)[1]


def test_images_are_seen_as_in_evaluation(found):
    experiment, _, sets = found
    pixels = torch.stack([experiment.test[index]["pixel_values"] for index in range(len(experiment.test))])
    torch.testing.assert_close(sets.test.images.features, features(experiment, pixels))
    assert sets.test.images.labels.tolist() == experiment.test.labels.tolist()
    assert sets.group_names == experiment.group_names
    for split in (sets.train, sets.validation, sets.test):
        groups, labels = split.images.groups, split.images.labels
        torch.testing.assert_close(groups, labels * len(sets.attribute_names) + split.attribute)


def test_backgrounds_and_swapped_backgrounds(found):
    *_, sets = found
    train = sets.train
    assert train.swapped.shape == (2, *train.images.features.shape)
    assert sets.validation.swapped.shape == (1, *sets.validation.images.features.shape)
    assert sets.test.swapped is None
    assert train.maskable.all()
    assert torch.isclose(*train.swapped).all(1).float().mean() < 0.2  # a donor may be drawn again
    for changed in (train.background, *train.swapped):
        assert not torch.isclose(changed, train.images.features).all(1).any()


def test_the_pixels_that_are_kept_and_those_that_are_not(found, monkeypatch):
    experiment, folder, _ = found
    seen = {}

    def remember(model, images, args, cache, collator):
        seen.setdefault(Path(cache).name, []).append(images)
        return extraction.extract_features(model, images, args, cache, collator)

    monkeypatch.setattr("clp_hf.features.causal.extract_features", remember)
    feature_sets.feature_sets(experiment, folder)
    indices = list(range(8))
    images, background, swapped = (dataset.__getitems__(indices) for dataset in seen["train"][:3])
    for original, without, other in zip(images, background, swapped, strict=True):
        covered = original["mask"] >= 0.5
        kept = covered.expand_as(original["pixel_values"])
        assert torch.equal(other["pixel_values"][kept], original["pixel_values"][kept])
        assert (other["pixel_values"] != original["pixel_values"]).any()
        assert (without["pixel_values"][kept] != original["pixel_values"][kept]).float().mean() > 0.5
    again = seen["train"][2].__getitems__(indices)
    assert all(torch.equal(a["pixel_values"], b["pixel_values"]) for a, b in zip(swapped, again, strict=True))


def test_nothing_is_computed_twice(found, monkeypatch):
    experiment, folder, sets = found

    def computed(*args):
        raise AssertionError("computed again")

    monkeypatch.setattr(extraction._FeatureExtractor, "predict", computed)
    again = feature_sets.feature_sets(experiment, folder, copies=2)
    torch.testing.assert_close(again.train.swapped, sets.train.swapped, rtol=0, atol=0)
    with pytest.raises(AssertionError, match="computed again"):
        feature_sets.feature_sets(experiment, folder, copies=3)


@pytest.mark.parametrize("seed", [0, 3])
def test_the_meta_set_is_that_of_a_run(found, make, birds, seed):
    *_, sets = found
    experiment = make(birds, size=32, seed=seed)
    chosen, rest = sets.meta_indices(2, seed)
    pool = experiment.validation_pool
    assert pool.select(chosen)["group"][:] == experiment.meta.group.tolist()
    assert [image.tobytes() for image in pool.select(chosen)["image"]] == [
        image.tobytes() for image in experiment.meta.dataset["image"]
    ]
    assert len(rest) == len(experiment.validation)


def test_without_masks_there_are_images_alone(make, tmp_path):
    columns = {"label": ["cat", "cat", "dog", "dog"], "attribute": ["indoor", "outdoor"] * 2}
    splits = {name: grouped(n, **columns) for name, n in (("train", 5), ("validation", 5), ("test", 3))}
    sets = feature_sets.feature_sets(make(dataset_name=to_folder(tmp_path / "data", **splits)), tmp_path)
    assert sets.train.swapped is sets.train.background is sets.train.maskable is None
    assert sets.attribute_names == ["indoor", "outdoor"]
    assert sets.validation.attribute.tolist() == (sets.validation.images.groups % 2).tolist()


def test_frozen_features_of_training_images_are_those_of_evaluation(make, tmp_path):
    folder = to_folder(tmp_path / "data", train=coloured(20), test=coloured(4, seed=1))
    experiment = make(dataset_name=folder, size=48, crop_padding=4)  # three times the images' own size
    pixels = torch.stack(
        [feature_sets.ImageClassificationDataset(experiment.splits["train"], experiment.validation.transform)[index]
         ["pixel_values"] for index in range(8)]
    )  # fmt: skip
    expected = features(experiment, pixels)
    freeze(experiment, str(tmp_path / "features"), replace(experiment.args, meta_every=0))
    torch.testing.assert_close(experiment.train.features[:8], expected)
