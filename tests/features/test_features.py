"""Features of a data set: right, cached, never stale, never half."""

from functools import partial

import pytest
import torch
from conftest import Squares, vit
from safetensors.torch import load_file

from clp_hf import CLPTrainingArguments
from clp_hf.features import extraction
from clp_hf.features import feature_set as feature_set_module
from clp_hf.hsfm import FeatureSet, extract_features
from clp_hf.modeling import find_classifier_head, forward_with_features


@pytest.fixture
def args(tmp_path):
    return CLPTrainingArguments(str(tmp_path / "out"), meta_every=0, per_device_eval_batch_size=5, use_cpu=True)


def test_features_are_those_of_the_model(args):
    model = vit()
    data = Squares(13)
    found = extract_features(model, data, args)
    model.eval()
    pixels = torch.stack([data[index]["pixel_values"] for index in range(13)])
    head = find_classifier_head(model, pixels[:2])[1]
    with torch.no_grad():
        logits, features = forward_with_features(model, head, pixels)
    torch.testing.assert_close(found.features, features)
    torch.testing.assert_close(found.logits, logits)
    assert found.labels.tolist() == list(data.labels)
    assert found.groups.tolist() == list(data.group)


def test_the_cache_is_used_until_weights_or_data_change(args, tmp_path, monkeypatch):
    model, runs = vit(), []
    predict = extraction._FeatureExtractor.predict
    monkeypatch.setattr(
        extraction._FeatureExtractor, "predict", lambda self, data: runs.append(1) or predict(self, data)
    )
    first = extract_features(model, Squares(7), args, tmp_path / "cache")
    again = extract_features(model, Squares(7), args, tmp_path / "cache")
    assert len(runs) == 1
    torch.testing.assert_close(again.features, first.features, rtol=0, atol=0)

    extract_features(model, Squares(8), args, tmp_path / "cache")
    assert len(runs) == 2
    with torch.no_grad():
        next(model.parameters()).add_(1e-3)
    changed = extract_features(model, Squares(7), args, tmp_path / "cache")
    assert len(runs) == 3
    assert not torch.equal(changed.features, first.features)


def test_groups_may_be_absent(args):
    assert extract_features(vit(), Squares(4, columns=()), args).groups is None


def feature_set(n=5):
    return FeatureSet(torch.randn(n, 3), torch.randn(n, 2), torch.arange(n) % 2)


def test_a_cut_off_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "features.safetensors"
    feature_set().save(path, "a")
    before = load_file(path)

    def cut_off(tensors, part, metadata):
        with open(part, "wb") as file:
            file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(feature_set_module, "save_file", cut_off)
    with pytest.raises(OSError, match="disk full"):
        feature_set().save(path, "b")
    assert [file.name for file in tmp_path.iterdir()] == ["features.safetensors"]
    torch.testing.assert_close(load_file(path), before)


def test_a_cache_of_another_model_is_refused(tmp_path):
    feature_set().save(tmp_path / "f", "of one model")
    with pytest.raises(ValueError, match="another model, data set or transform"):
        FeatureSet.load(tmp_path / "f", "of another")


def test_non_finite_features_are_refused():
    with pytest.raises(ValueError, match="1 of 3 feature vectors are not finite, the first that of image 2"):
        FeatureSet(torch.tensor([[0.0], [1.0], [torch.nan]]), torch.zeros(3, 2), torch.tensor([0, 1, 0]))


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="as many"):
        FeatureSet(torch.zeros(3, 1), torch.zeros(2, 2), torch.tensor([0, 1, 0]))


def test_arguments_of_a_training_run_are_taken(tmp_path):
    args = CLPTrainingArguments(
        str(tmp_path), use_cpu=True, eval_strategy="epoch", save_strategy="epoch", load_best_model_at_end=True
    )
    assert len(extract_features(vit(), Squares(3), args)) == 3
    assert args.eval_strategy == "epoch"


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 1
    path.write_bytes(content)


DAMAGES = {
    **{f"flipped at {at}": partial(flip, at=at) for at in (0.0, 0.02, 0.1, 0.25, 0.5, 0.75, 0.999)},
    "no fingerprint": lambda path: path.write_bytes(path.read_bytes().replace(b'"fingerprint"', b'"fingerprinT"')),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "emptied": lambda path: path.write_bytes(b""),
    "deleted": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_no_damage_to_a_cache_changes_a_feature(args, tmp_path, damage):
    """It is noticed, and the features are computed again."""
    model, data = vit(), Squares(7)
    first = vars(extract_features(model, data, args, tmp_path / "cache"))
    (path,) = (tmp_path / "cache").iterdir()
    DAMAGES[damage](path)
    again = vars(extract_features(model, data, args, tmp_path / "cache"))
    torch.testing.assert_close(again, first, rtol=0, atol=0)
    if damage != "deleted":
        torch.testing.assert_close(load_file(path)["features"], first["features"], rtol=0, atol=0)  # mended


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "f.safetensors"
    feature_set().save(path, "a")
    flip(path, 0.99)
    with pytest.raises(ValueError, match=r"f.safetensors is damaged: its values are not those"):
        FeatureSet.load(path, "a")
