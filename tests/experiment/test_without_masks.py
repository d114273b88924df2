"""Data without masks where a recipe would need some: what is chosen instead, and that it is said."""

import json

import pytest
from test_recipes import SMALL, grouped, run, to_folder  # noqa: F401

from clp_hf.data import embedded_birds
from clp_hf.hub.record import RunRecord
from clp_hf.segmentation import MaskArguments, make_masks

PLACES = {"label": ["landbird"] * 2 + ["waterbird"] * 2, "place": ["land", "water"] * 2}
FLAGS = (*SMALL, "--meta_samples", "2", "--max_steps", "2")


@pytest.fixture
def birds(tmp_path):
    def birds(**columns):
        sizes = {"train": 8, "validation": 4, "test": 4}
        return to_folder(tmp_path / "birds", **{name: grouped(n, **columns) for name, n in sizes.items()})

    return birds


@pytest.fixture
def settings(tmp_path):
    return lambda: RunRecord.load(tmp_path / "run").settings["method"]


def test_the_attribute_stands_for_the_background(run, birds, settings, caplog):  # noqa: F811
    folder = birds(**PLACES)
    for more in ([], ["--output_dir", folder + "-run"]):
        output, _ = run("waterbirds", "--dataset_name", folder, *FLAGS, *more)
    assert f"{folder} has no masks: --evidence attribute and no causal images are chosen" in caplog.text
    assert f"clp-hf masks --dataset_name {folder}" in caplog.text
    found = settings()
    assert (found["evidence"], found["counterfactual_infills"], found["factual_infills"]) == (["attribute"], [], [])
    assert "Test error: clp" in output
    run("waterbirds", "--dataset_name", folder, *FLAGS, "--lookahead_scope", "head", "--lookahead", "sgd")
    assert (settings()["lookahead"], settings()["lookahead_scope"]) == ("sgd", "head")  # as was asked for


def test_meta_lp_where_there_are_no_groups_and_of_the_paper(run, birds, settings, caplog, tmp_path):  # noqa: F811
    folder = birds(label=PLACES["label"])
    output, _ = run("waterbirds", "--dataset_name", folder, *FLAGS)
    assert f"{folder} has no masks: Meta-LP and no causal images is chosen" in caplog.text
    assert "Test error: meta_lp" in output
    assert (settings()["evidence"], settings()["counterfactual_infills"]) == ([], [])
    run("waterbirds", "--dataset_name", folder, *FLAGS)  # the same command again is no other method
    with pytest.raises(ValueError, match="holds a run of another method, meta_lp"):
        run("waterbirds", "--dataset_name", folder, *FLAGS, "--method", "erm")
    run("waterbirds", "--dataset_name", folder, *FLAGS, "--preset", "paper", "--output_dir", str(tmp_path / "paper"))
    record = RunRecord.load(tmp_path / "paper").settings["method"]
    assert (record["factual_infills"], record["saliency_weight"], record["perturb_meta_logits"]) == ([], 0.0, True)


@pytest.mark.parametrize("asked", [("--evidence", "background"), ("--factual_infills", "random"), ()])
def test_what_was_asked_for_is_refused_and_not_left_out(run, birds, asked):  # noqa: F811
    method = () if asked else ("--method", "background_swap")
    with pytest.raises(ValueError, match="mask"):
        run("waterbirds", "--dataset_name", birds(**PLACES), *FLAGS, *asked, *method)


def test_masks_that_were_made_are_taken(run, settings, caplog, tmp_path):  # noqa: F811
    pytest.importorskip("cv2")
    drawn = embedded_birds(n_train=40, n_validation=16, n_test=16, image_size=48, correlation=0.75)
    folder = to_folder(tmp_path / "birds", **drawn.remove_columns(["mask", "group"]))
    make_masks(MaskArguments(folder))
    run("waterbirds", "--dataset_name", folder, *FLAGS)
    assert f"{folder} has no masks: those of {folder}-masks are taken, which clp-hf masks made of it." in caplog.text
    assert settings()["evidence"] == ["background"]
    assert "train" in RunRecord.load(tmp_path / "run").masks
    made = tmp_path / "birds-masks" / "masks.json"
    made.write_text(json.dumps({"settings": {"dataset_name": "another/birds"}}))
    run("waterbirds", "--dataset_name", folder, *FLAGS)
    assert settings()["evidence"] == ["attribute"]
