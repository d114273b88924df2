"""Methods of two stages, as their command runs them: both stages, going on, and what is refused before any training."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clp_hf import CLPTrainer
from clp_hf.data.embedded import embedded_birds
from clp_hf.experiment import STAGED, Experiment
from clp_hf.experiment.staging import DONE, LEARNED
from clp_hf.experiment.two_stages import FOLDER
from clp_hf.features import HeadTrainer
from clp_hf.hub.record import RunRecord
from clp_hf.modeling.loading import load_image_classifier
from clp_hf.report.methods import method_of
from clp_hf.stages import Learned

RECIPES = Path(__file__).parents[2] / "recipes"
FLAGS = [
    "--image_size", "32", "--meta_samples", "2", "--max_steps", "2", "--per_device_train_batch_size", "16",
    "--learning_rate", "0.0001", "--warmup_steps", "0", "--logging_steps", "2", "--save_strategy", "steps",
    "--eval_strategy", "steps", "--save_steps", "1", "--eval_steps", "1", "--use_cpu", "true", "--disable_tqdm", "true",
    "--report_to", "none",
]  # fmt: skip
OPTIONS = {"george": {"smallest_cluster": 2}, "ssa": {"rounds": 1}, "jtt": {"first_share": 0.5}}


@pytest.fixture(scope="module")
def birds(tmp_path_factory):
    """A folder of images, and that of a classifier that tells the place in the stead of the class."""
    folder = tmp_path_factory.mktemp("birds")
    splits = embedded_birds(n_train=48, n_validation=32, n_test=16, image_size=32)
    for name, split in splits.items():
        split.to_parquet(folder / f"{name}.parquet")
    torch.manual_seed(0)
    names = {0: "landbird", 1: "waterbird"}
    model = load_image_classifier("test_resnet", id2label=names, image_size=32, pretrained=False)
    pixels = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in splits["train"]["image"]])
    places = torch.tensor(splits["train"]["group"]) % 2
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(15):
        optimizer.zero_grad()
        F.cross_entropy(model(pixel_values=pixels / 64 - 2).logits, places).backward()
        optimizer.step()
    model.save_pretrained(folder / "model")
    return folder


@pytest.fixture
def run(tmp_path, monkeypatch, birds):
    """Run the recipe in this process; which folders were trained into, by which trainers' classes."""
    trained = []

    def run(*flags):
        trained.clear()
        monkeypatch.syspath_prepend(str(RECIPES))
        given = ["--dataset_name", str(birds), "--model_name_or_path", str(birds / "model")]
        given += ["--output_dir", str(tmp_path / "run")]
        monkeypatch.setattr(sys, "argv", ["waterbirds", *FLAGS, *given, *flags])
        importlib.import_module("waterbirds").main()
        return list(trained)

    for kind in (CLPTrainer, HeadTrainer):

        def watched(self, *args, kind=kind, train=kind.train, **kwargs):
            trained.append(Path(self.args.output_dir).name)
            return train(self, *args, **kwargs)

        monkeypatch.setattr(kind, "train", watched)
    run.trained = trained
    return run


@pytest.mark.parametrize("method", STAGED)
def test_every_one_trains_end_to_end(run, tmp_path, method):
    options = OPTIONS.get(method)
    assert run("--method", method, *(["--stage_options", json.dumps(options)] if options else [])) == [FOLDER, "run"]
    out, stages = tmp_path / "run", STAGED[method]
    results = json.loads((out / "all_results.json").read_text())
    assert {"eval_worst_group_accuracy", "test_worst_group_accuracy", "train_runtime"} <= set(results)
    first, second = (load_image_classifier(str(path)).state_dict() for path in (out / FOLDER, out))
    same = [name for name in second if torch.equal(first[name], second[name])]
    heads = [name for name in second if name not in same]
    record, card = RunRecord.load(out), (out / "README.md").read_text()
    assert record.settings["data and model"]["method"] == method
    if stages.repair:
        assert {name.split(".")[-2] for name in heads} <= {"fc"}
        assert "first stage" in card
    else:
        assert len(heads) > 2
        with open(out / FOLDER / DONE) as file:
            assert "load_best_model_at_end" not in json.load(file)["settings"]  # its last weights
        assert method.upper() in method_of(record)
        assert (out / FOLDER / LEARNED).is_file()


def test_a_run_that_is_killed_in_its_second_stage_goes_on_there(run, tmp_path, monkeypatch, birds):
    """To the same weights as one that is not, though what was learned between is not learned again."""
    method, out = ["--method", "jtt", "--stage_options", '{"first_share": 0.5}'], tmp_path / "run"
    run(*method)
    whole = load_image_classifier(str(out)).state_dict()
    run(*method, "--overwrite_output_dir", "true")  # clears the first stage too
    assert run.trained == [FOLDER, "run"]
    (out / "_run.json").unlink()  # as it was before the run had ended
    with pytest.raises(ValueError, match="holds a run that has not ended, up to checkpoint-1"):
        run(*method)
    monkeypatch.setattr("clp_hf.experiment.staging.extract_features", None)
    assert run(*method, "--resume_from_checkpoint", "last") == ["run"]
    resumed = load_image_classifier(str(out)).state_dict()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    with pytest.raises(ValueError, match=r"first stage of other arguments \(learning_rate was 0.0001, is 0.1\)"):
        run(*method, "--resume_from_checkpoint", "last", "--learning_rate", "0.1")
    with pytest.raises(ValueError, match="is of a first stage"):
        run(*method, "--resume_from_checkpoint", str(out / FOLDER / "checkpoint-1"))


def test_a_first_stage_is_used_again_where_it_is_of_the_same_arguments(run, tmp_path):
    assert run("--method", "crt") == [FOLDER, "run"]
    assert run("--method", "crt") == ["run"]
    assert run("--method", "crt", "--seed", "1") == [FOLDER, "run"]
    with pytest.raises(ValueError, match="holds a run of another method, crt"):
        run("--method", "lws")


def test_a_first_stage_that_is_killed_goes_on(run, tmp_path, monkeypatch):
    train, begun = Experiment.run, []

    def killed(self, method, output_dir, **kwargs):
        result = train(self, method, output_dir, **kwargs)
        begun.append(kwargs["args"].resume_from_checkpoint)
        if len(begun) == 1:
            raise InterruptedError
        return result

    monkeypatch.setattr(Experiment, "run", killed)
    with pytest.raises(InterruptedError):
        run("--method", "crt")
    assert not (tmp_path / "run" / FOLDER / DONE).exists()
    assert run("--method", "crt", "--resume_from_checkpoint", "last") == [FOLDER, "run"]
    assert begun == [None, str(tmp_path / "run" / FOLDER / "checkpoint-1")]  # the best, which is kept


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--method", "glc", "--meta_split", "none"], "--method glc learns from a meta set, and there is none"),
        (
            ["--method", "ssa", "--attribute_column", "none", "--group_column", "none"],
            "--method ssa learns from the groups of the meta images",
        ),
        (["--method", "erm", "--stage_options", '{"upweight": 2}'], "--method erm has one stage"),
        (
            ["--method", "jtt", "--stage_options", '{"upwieght": 2}'],
            r"--method jtt \(--stage_options\) has no option upwieght; it has first_share, upweight",
        ),
        (
            ["--method", "jtt", "--stage_options", "upweight"],
            "are 'upweight'; expected a dictionary of first_share, upweight, in JSON",
        ),
        (["--method", "jtt", "--stage_options", '{"upweight": "2"}'], "are numbers; found {'upweight': '2'}"),
        (["--method", "jtt", "--stage_options", '{"first_share": 2}'], "first_share is 2; expected a share"),
        (["--method", "jtt", "--meta_every", "2"], "--method jtt sets meta_every=0"),
    ],
)
def test_what_is_missing_is_said_before_any_training(run, flags, message):
    with pytest.raises(ValueError, match=message):
        run(*flags)
    assert run.trained == []


def test_learned_facts_are_found_again_by_their_fingerprint(tmp_path):
    path, weight = tmp_path / LEARNED, torch.tensor([1.0, 2.0])
    assert Learned.load(path, "a") is None
    Learned("Told.", weight=weight).save(path, "a")
    assert Learned.load(path, "b") is None
    found = Learned.load(path, "a")
    assert (found.told, found.group, found.weight.tolist()) == ("Told.", None, weight.tolist())
    path.write_bytes(b"damaged")
    assert Learned.load(path, "a") is None
