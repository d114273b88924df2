"""`--attribution` end to end: in the results, and in the card."""

import json
import sys
from pathlib import Path

import pytest

from clp_hf.data import embedded_birds

pytest.importorskip("pytorch_grad_cam")

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture
def run(tmp_path, monkeypatch):
    def run(*flags):
        data = embedded_birds(n_train=48, n_validation=24, n_test=24, image_size=32)
        (tmp_path / "data").mkdir(exist_ok=True)
        for name, split in data.items():
            split.to_parquet(tmp_path / "data" / f"{name}-00000-of-00001.parquet")
        monkeypatch.syspath_prepend(str(RECIPES))
        import waterbirds

        monkeypatch.setattr(
            sys, "argv",
            ["waterbirds", "--dataset_name", str(tmp_path / "data"), "--model_name_or_path", "cifar_resnet20",
             "--image_size", "32", "--freeze_batch_norm", "false", "--max_steps", "1", "--eval_steps", "1",
             "--save_steps", "1", "--meta_samples", "2", "--method", "erm", "--use_cpu", "true",
             "--disable_tqdm", "true", "--report_to", "none", "--output_dir", str(tmp_path / "run"),
             "--attribution", *flags],
        )  # fmt: skip
        waterbirds.main()
        return json.loads((tmp_path / "run" / "all_results.json").read_text())

    return run


@pytest.mark.pictures
def test_attribution_is_in_the_results_and_in_the_card(run, tmp_path):
    results = run()
    for prefix in ("eval", "test"):
        assert 0 < results[f"{prefix}_attribution_in_mask"] < 1
        assert 0 < results[f"{prefix}_mask_area"] < 1
        assert f"{prefix}_attribution_in_mask_group_waterbird_on_land" in results
        assert f"{prefix}_worst_group_accuracy" in results
    card = (tmp_path / "run" / "README.md").read_text()
    share = f"{100 * results['test_attribution_in_mask']:.1f}"
    assert f"**Where it looks (test).** {share} % of the Grad-CAM attribution" in card
    assert "](figures/grad_cam.png)" in card
    assert (tmp_path / "run" / "figures" / "grad_cam.png").stat().st_size < 400_000


def test_attribution_without_masks_is_refused_before_training(run, tmp_path):
    with pytest.raises(ValueError, match="make masks"):
        run("--mask_column", "none", "--evidence", "none")
    assert not (tmp_path / "run").exists()
