"""Publishing, with the true client over HTTP, to a Hub on loopback: what is pushed, and who can load it."""

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
import transformers
from conftest import SIZE, Squares, vit
from hub_server import TOKEN, hub_server, metadata_errors
from huggingface_hub import HfApi, ModelCard, constants, hf_api
from PIL import Image
from safetensors.torch import load_file
from transformers import (
    AutoModelForImageClassification,
    TimmWrapperImageProcessor,
    TrainerCallback,
    ViTImageProcessor,
)

from clp_hf import PerturbationNetwork
from clp_hf.clp_head import CLPHeadArguments, CLPHeadTrainer
from clp_hf.hsfm import HSFMArguments, HSFMTrainer
from clp_hf.hub import CardDetails, PushError, hub_id, render
from clp_hf.metrics import GroupMetrics
from clp_hf.modeling import load_image_classifier

LABELS = ["small", "middle", "large"]
GROUPS = [f"{label}_on_{ground}" for label in LABELS for ground in ("dark", "light")]
REPO = "tester/squares"
SAMPLE = "perturbation_network/characteristics.safetensors"  # of training
PUBLISHED = {
    "README.md", "config.json", "model.safetensors", "preprocessor_config.json", "perturbation_network/config.json",
    "perturbation_network/model.safetensors", SAMPLE,
}  # fmt: skip


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub, where this process is logged in: what `HF_ENDPOINT` and its like set when huggingface_hub is imported."""
    with hub_server() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(hf_api.api, "endpoint", server.endpoint)
        monkeypatch.setattr(transformers.utils.hub, "_hf_api", None)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server
        huggingface_hub.close_session()


def run_as_user(code, hub, tmp_path, token=""):
    """Run a script as somebody who has not installed clp_hf; what it prints last, from JSON."""
    code = "import sys; sys.modules['clp_hf'] = None  # importing it fails\n" + code
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HF_") and name != "PYTHONPATH"},
        "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": token,
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def squares_trainer(make_trainer, model=None, **settings):
    model = model or vit(id2label=dict(enumerate(LABELS)), label2id={name: i for i, name in enumerate(LABELS)})
    return make_trainer(
        model,
        compute_metrics=GroupMetrics(LABELS, GROUPS),
        **{"hub_model_id": "squares", "max_steps": 2, "meta_samples": 2} | settings,
    )


class InStep(TrainerCallback):
    """Training waits for what it pushes in the background, so that no push is skipped because another goes on."""

    def __init__(self, trainer):
        self.trainer = trainer

    def on_step_begin(self, args, state, control, **kwargs):
        self.trainer._finish_current_push()


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


# ---- what is published -----------------------------------------------------------------------------------------------


def test_published_models_load_without_clp_hf(hub, make_trainer, tmp_path):
    """A transformers and a timm model: `AutoModel`, `pipeline`, and timm itself give what was trained."""
    image = Image.effect_mandelbrot((40, 30), (-2, -1.5, 1, 1.5), 50).convert("RGB")
    image.save(tmp_path / "photo.png")
    image.save(tmp_path / "photo.jpg")  # of the card's snippet
    torch.manual_seed(0)
    timm_model = load_image_classifier(
        timm.create_model("mobilenetv2_035", num_classes=3), id2label=dict(enumerate(LABELS)), image_size=24
    )
    # Trained with settings that the model itself does not have.
    settings = timm_model.config.pretrained_cfg | {"input_size": (3, SIZE, SIZE), "crop_pct": 1.0, "mean": (0.5,) * 3}
    trained = {
        "tester/vit": squares_trainer(make_trainer, hub_model_id="vit", output_dir=str(tmp_path / "vit")),
        "tester/timm": squares_trainer(
            make_trainer,
            timm_model,
            hub_model_id="timm",
            output_dir=str(tmp_path / "timm"),
            lookahead_scope="head",
            processing_class=TimmWrapperImageProcessor(settings, architecture="mobilenetv2_035"),
        ),
    }
    expected = {}
    for repository, trainer in trained.items():
        trainer.train()
        trainer.push_to_hub()
        pixels = trainer.processing_class(image, return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            logits = trainer.model.eval()(pixels).logits[0]
        expected[repository] = (pixels.flatten().tolist(), logits.tolist(), logits.softmax(-1).tolist())
    assert set(hub.repositories["tester/vit"].files) - {".gitattributes", "training_args.bin"} == PUBLISHED

    found = run_as_user(
        """
import builtins, json, pickle, timm, torch
from huggingface_hub import ModelCard
from PIL import Image
from transformers import AutoModelForImageClassification, pipeline

def refuse(*args, **kwargs):
    raise AssertionError("a pickle was loaded")
torch.load = pickle.load = refuse

image, results = Image.open("photo.png"), {}
for name in ("tester/vit", "tester/timm"):
    classify = pipeline("image-classification", name)
    pixels = classify.image_processor(image, return_tensors="pt")["pixel_values"]
    model = AutoModelForImageClassification.from_pretrained(name)
    scores = {entry["label"]: entry["score"] for entry in classify(image)}
    with torch.no_grad():
        results[name] = [pixels.flatten().tolist(), model(pixels).logits[0].tolist(), scores]
model = timm.create_model("hf-hub:tester/timm", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
with torch.no_grad():
    pixels = transform(image)[None]
    results["timm itself"] = [pixels.flatten().tolist(), model(pixels)[0].tolist(), model.pretrained_cfg["label_names"]]
exec(ModelCard.load("tester/vit").text.split("```python")[1].split("```")[0])
print(json.dumps(results))
""",
        hub,
        tmp_path,
    )
    for repository, (pixels, logits, scores) in expected.items():
        assert found[repository][0] == pytest.approx(pixels, abs=1e-5), repository
        assert found[repository][1] == pytest.approx(logits, abs=1e-5), repository
        assert [found[repository][2][label] for label in LABELS] == pytest.approx(scores, abs=1e-5)
    assert found["timm itself"][0] == pytest.approx(expected["tester/timm"][0], abs=1e-5)
    assert found["timm itself"][1] == pytest.approx(expected["tester/timm"][1], abs=1e-5)
    assert found["timm itself"][2] == LABELS

    network = PerturbationNetwork.from_pretrained("tester/vit")
    assert torch.equal(weights(network), weights(trained["tester/vit"].perturbation_network))


@pytest.mark.parametrize("loaded", [False, True])
def test_timm_reads_a_saved_folder(make_trainer, tmp_path, loaded):
    """Whether the wrapper was built around a timm model or loaded: transformers names the weights differently."""
    torch.manual_seed(0)
    model = load_image_classifier(timm.create_model("mobilenetv2_035", num_classes=3))
    if loaded:
        model.save_pretrained(tmp_path / "start")
        model = load_image_classifier(str(tmp_path / "start"))
    trainer = make_trainer(model, meta_every=0)
    trainer.save_model(str(tmp_path / "saved"))
    with torch.no_grad():
        pixels = torch.rand(2, 3, SIZE, SIZE)
        expected = trainer.model.eval()(pixels).logits
        theirs = timm.create_model(f"local-dir:{tmp_path / 'saved'}", pretrained=True).eval()(pixels)
        ours = AutoModelForImageClassification.from_pretrained(tmp_path / "saved")(pixels).logits
    torch.testing.assert_close(theirs, expected)
    torch.testing.assert_close(ours, expected)


def test_first_and_second_push_and_both_revisions(hub, make_trainer):
    trainer = squares_trainer(make_trainer)
    trainer.train()
    first = trainer.push_to_hub(commit_message="first")
    before = weights(trainer.model), weights(trainer.perturbation_network)
    with torch.no_grad():
        for network in (trainer.model, trainer.perturbation_network):
            for parameter in network.parameters():
                parameter.add_(1)
    trainer.push_to_hub(commit_message="second")
    assert hub.repositories[REPO].messages == ["initial commit", "first", "second"]
    for revision, shift in ((first.oid, 0), ("main", 1)):
        model = AutoModelForImageClassification.from_pretrained(REPO, revision=revision)
        torch.testing.assert_close(weights(model), before[0] + shift)
        network = PerturbationNetwork.from_pretrained(REPO, revision=revision)
        torch.testing.assert_close(weights(network), before[1] + shift)
    with pytest.raises(huggingface_hub.errors.RevisionNotFoundError):
        PerturbationNetwork.from_pretrained(REPO, revision="no-such-revision")


CHECKPOINT = {f"{path}" for path in PUBLISHED - {"README.md"}} | {"optimizer.pt", "trainer_state.json", "meta_state.pt"}


@pytest.mark.parametrize(
    ("strategy", "folders"),
    [
        ("end", []),
        ("every_save", []),
        ("checkpoint", ["last-checkpoint"]),
        ("all_checkpoints", ["checkpoint-2", "checkpoint-4"]),
    ],
)
def test_every_hub_strategy(hub, make_trainer, strategy, folders):
    """Pushed while training: model, network and card of the checkpoint, and whole checkpoints to resume from."""
    trainer = squares_trainer(
        make_trainer, max_steps=4, push_to_hub=True, hub_strategy=strategy,  save_strategy="steps",
        save_steps=2, eval_strategy="steps", eval_steps=2,
    )  # fmt: skip
    trainer.add_callback(InStep(trainer))
    trainer.train()
    repository = hub.repositories[REPO]
    if strategy == "end":
        assert repository.messages == ["initial commit"]
        trainer.save_model()
        assert repository.messages == ["initial commit", "Model save"]
    else:
        pushed = [message for message in repository.messages if not message.endswith("checkpoint")]
        assert pushed == ["initial commit", "Training in progress, step 2", "Training in progress, step 4"]
    assert set(repository.files) >= PUBLISHED | {f"{folder}/{path}" for folder in folders for path in CHECKPOINT}
    network = PerturbationNetwork.from_pretrained(REPO)
    assert torch.equal(weights(network), weights(trainer.perturbation_network))
    assert torch.equal(weights(AutoModelForImageClassification.from_pretrained(REPO)), weights(trainer.model))
    card = ModelCard.load(REPO)
    assert "step 4 of 4" in card.text
    scores = {result.metric_name: result.metric_value for result in card.data.eval_results}
    logged = [entry for entry in trainer.state.log_history if "eval_accuracy" in entry][-1]
    assert scores["Average accuracy"] == pytest.approx(logged["eval_accuracy"], abs=1e-4)


def test_an_unfinished_run_has_the_card_of_its_own_step(hub, make_trainer):
    trainer = squares_trainer(
        make_trainer, max_steps=4, push_to_hub=True, hub_strategy="every_save", 
        save_strategy="steps", save_steps=2, eval_strategy="steps", eval_steps=4,
    )  # fmt: skip
    trainer.add_callback(InStep(trainer))
    trainer.train()
    cards = [commit.files["README.md"].content.decode() for commit in hub.repositories[REPO].commits[1:]]
    assert "step 2 of 4" in cards[0]
    assert "These weights have not been evaluated." in cards[0]
    assert "model-index" not in cards[0]
    assert "step 4 of 4" in cards[1]
    assert "model-index" in cards[1]


def test_a_private_repository_is_not_readable_without_a_token(hub, make_trainer, tmp_path):
    trainer = squares_trainer(make_trainer, push_to_hub=True, hub_private_repo=True)
    trainer.push_to_hub()
    code = """
import json
from huggingface_hub import hf_hub_download
try:
    print(json.dumps(len(open(hf_hub_download("tester/squares", "config.json")).read())))
except Exception as error:
    print(json.dumps(type(error).__name__))
"""
    assert run_as_user(code, hub, tmp_path) == "RepositoryNotFoundError"
    assert run_as_user(code, hub, tmp_path, TOKEN) == len(hub.repositories[REPO].files["config.json"])


def test_a_token_is_not_published(hub, make_trainer, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    trainer = squares_trainer(make_trainer, push_to_hub=True, hub_strategy="checkpoint", hub_token=TOKEN,
                              save_strategy="steps", save_steps=2)  # fmt: skip
    trainer.train()
    trainer.push_to_hub()
    files = hub.repositories[REPO].files
    assert {"training_args.bin", "last-checkpoint/training_args.bin"} <= set(files)
    assert not [path for path, content in files.items() if TOKEN.encode() in content]


def hsfm_trainer(tmp_path, **settings):
    args = HSFMArguments(
        str(tmp_path / "run"), support_size=4, hard_size=4, epochs=1, inner_steps=1, edits_per_epoch=1, inner_rate=1e-2,
        edit_rate=0.1, use_cpu=True, report_to=[], disable_tqdm=True, hub_model_id="squares", **settings,
    )  # fmt: skip
    processor = ViTImageProcessor(size={"height": SIZE, "width": SIZE})
    return HSFMTrainer(
        vit(), args, train_dataset=Squares(48), eval_dataset=Squares(24, start=1000), processing_class=processor
    )


def clp_head_trainer(tmp_path, **settings):
    args = CLPHeadArguments(
        str(tmp_path / "run"), strength_steps=1, use_cpu=True, report_to=[], disable_tqdm=True, hub_model_id="squares",
        **settings,
    )  # fmt: skip
    processor = ViTImageProcessor(size={"height": SIZE, "width": SIZE})
    return CLPHeadTrainer(
        vit(), args, train_dataset=Squares(60), meta_dataset=Squares(24, start=1000), processing_class=processor,
        eval_dataset=Squares(24, start=2000),
    )  # fmt: skip


METHODS = {
    "CLP": {},
    "Meta-Weight-Net": {"meta_network": "weight", "counterfactual_infills": [], "factual_infills": []},
    "plain": {"meta_every": 0},
    "loss": {"meta_every": 0, "training_loss": "group_dro"},
    "HSFM": hsfm_trainer,
    "CLP head": clp_head_trainer,
}
FOREIGN = (
    "notes.txt", "secrets.json", "private.pt", "my.safetensors", "data.csv", "features/train.safetensors",
    "perturbation_network/notes.txt", "figures/patient.png", "runs/events.out.tfevents", ".env", "sub/config.json",
)  # fmt: skip


@pytest.mark.parametrize(
    ("method", "strategy"),
    [
        *((method, "checkpoint") for method in METHODS),
        ("CLP", "end"),
        ("CLP", "every_save"),
        ("CLP", "all_checkpoints"),
    ],
)
@pytest.mark.filterwarnings("ignore:The hard set asks for")
def test_neither_tokens_nor_foreign_files_are_pushed(hub, make_trainer, tmp_path, monkeypatch, method, strategy):
    """Of any trainer, by any strategy: every byte of every commit is searched."""
    monkeypatch.delenv("HF_TOKEN")
    settings = {"push_to_hub": True, "hub_token": TOKEN, "hub_strategy": strategy}
    if callable(METHODS[method]):
        trainer = METHODS[method](tmp_path, **settings)
    else:
        trainer = squares_trainer(make_trainer, save_strategy="steps", save_steps=1, **METHODS[method], **settings)
        trainer.add_callback(InStep(trainer))
    folder = Path(trainer.args.output_dir)
    for name in FOREIGN:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("private words of the user")
    trainer.train()
    trainer.evaluate()
    trainer.save_state()
    trainer.push_to_hub()
    pushed = {}
    for commit in hub.repositories[REPO].commits:
        pushed |= {path: file.content for path, file in commit.files.items()}
    assert {"README.md", "config.json", "model.safetensors", "preprocessor_config.json", "training_args.bin"} <= set(
        pushed
    )
    assert not [path for path, content in pushed.items() if TOKEN.encode() in content]
    assert not [path for path, content in pushed.items() if b"private words" in content]
    assert not [path for path in pushed if path.startswith("features")]


# ---- what can go wrong -----------------------------------------------------------------------------------------------


def test_a_refused_token_is_said_before_training(hub, make_trainer):
    with pytest.raises(PushError, match=r"(?s)'squares' was not pushed. Log in with `hf auth login`.*401"):
        squares_trainer(make_trainer, push_to_hub=True, hub_token="hf_expired")
    trainer = squares_trainer(make_trainer)
    with pytest.raises(PushError, match="hf auth login"):
        trainer.push_to_hub(token="hf_expired")


def test_a_cut_upload_says_so_and_a_retry_succeeds(hub, make_trainer, monkeypatch):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    trainer = squares_trainer(make_trainer)
    trainer.train()
    hub.cut_uploads = 1000
    with pytest.raises(PushError) as failure:
        trainer.push_to_hub()
    assert re.search(r"'tester/squares' was not pushed. Call push_to_hub\(\) again.*uploading '.*'", str(failure.value))
    assert hub.repositories[REPO].messages == ["initial commit"]  # nothing, rather than half of it
    folder = Path(trainer.args.output_dir)
    assert torch.equal(weights(type(trainer.model).from_pretrained(folder)), weights(trainer.model))
    assert load_file(folder / "perturbation_network" / "model.safetensors")

    hub.cut_uploads = 0
    trainer.push_to_hub()
    assert torch.equal(weights(AutoModelForImageClassification.from_pretrained(REPO)), weights(trainer.model))


def test_one_cut_is_repaired_by_the_client(hub, make_trainer, monkeypatch):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    hub.cut_uploads = 1
    squares_trainer(make_trainer).push_to_hub()
    assert set(hub.repositories[REPO].files) >= PUBLISHED - {SAMPLE}


def test_a_failed_push_in_the_background_is_logged_and_training_goes_on(hub, make_trainer, monkeypatch, caplog):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    monkeypatch.setattr(logging.getLogger("clp_hf"), "propagate", True)
    trainer = squares_trainer(make_trainer, push_to_hub=True, hub_strategy="every_save", save_strategy="steps",
                              save_steps=2)  # fmt: skip
    hub.cut_uploads = 1000
    trainer.train()
    assert trainer.state.global_step == 2
    assert [record.message for record in caplog.records if "'tester/squares' was not pushed" in record.message]


# ---- the model card --------------------------------------------------------------------------------------------------

DETAILS = CardDetails(
    license="mit",
    base_model="google/vit-tiny",
    dataset_name="Squares",
    dataset_id="tester/squares-data",
    group_counts={"train images": dict.fromkeys(GROUPS, 10)},
    tags="demo",
)


@pytest.fixture
def trained(make_trainer):
    trainer = squares_trainer(
        make_trainer, max_steps=4, card_details=DETAILS, save_strategy="steps", save_steps=2, eval_strategy="steps",
        eval_steps=2, load_best_model_at_end=True, metric_for_best_model="worst_group_accuracy",
    )  # fmt: skip
    trainer.train()
    trainer.evaluate()
    trainer.evaluate(Squares(48, start=2000), metric_key_prefix="test")
    return trainer


def test_the_whole_card(trained):
    """The card is `model_card_pattern.md`, but for figures of the run and the widths of the table."""

    def narrow(text):
        return re.sub(r"-{2,}", "--", re.sub(r" +", " ", text))

    trained.create_model_card()
    card = (Path(trained.args.output_dir) / "README.md").read_text()
    pattern = re.escape(narrow((Path(__file__).parent / "model_card_pattern.md").read_text()))
    pattern = pattern.replace("<number>", r"[\d.,]+").replace("<text>", ".*")
    assert re.fullmatch(pattern, narrow(card)), f"The card is now:\n{card}"


def test_the_metadata_is_valid_and_holds_the_results(trained, hub):
    trained.create_model_card()
    card = ModelCard.load(Path(trained.args.output_dir) / "README.md")
    card.validate()  # by the Hub's own address, here on loopback
    assert "POST /api/validate-yaml" in hub.requests
    assert not metadata_errors(card.content)
    data = card.data
    assert (data.license, data.base_model, data.datasets) == ("mit", "google/vit-tiny", ["tester/squares-data"])
    assert (data.library_name, data.pipeline_tag) == ("transformers", "image-classification")
    assert {"clp", "clp_hf", "demo", "generated_from_trainer"} <= set(data.tags)
    log = next(entry for entry in trained.state.log_history if "test_accuracy" in entry)
    scores = {result.metric_name: result.metric_value for result in data.eval_results}
    keys = {
        "Worst-group accuracy": "worst_group_accuracy",
        "Average accuracy": "accuracy",
        **{f"Accuracy, class {label}": f"accuracy_class_{label}" for label in LABELS},
        **{f"Accuracy, group {group}": f"accuracy_group_{group}" for group in GROUPS},
    }
    assert {name: scores[name] for name in keys} == {
        name: pytest.approx(log[f"test_{key}"], abs=1e-4) for name, key in keys.items()
    }
    assert {result.dataset_split for result in data.eval_results} == {"test"}


def test_results_are_those_of_the_selected_weights(make_trainer):
    """Without an evaluation after training, the card shows that of the step that was loaded as the best."""
    trainer = squares_trainer(
        make_trainer, max_steps=6, learning_rate=0.05, save_strategy="steps", save_steps=2, eval_strategy="steps",
        eval_steps=2, load_best_model_at_end=True, metric_for_best_model="loss",
    )  # fmt: skip
    trainer.train()
    # another step than the last, whatever this run chose
    trainer.state.best_global_step = 4
    trainer.state.best_model_checkpoint = str(Path(trainer.args.output_dir) / "checkpoint-4")
    trainer._load_best_model()
    trainer.create_model_card()
    card = ModelCard.load(Path(trainer.args.output_dir) / "README.md")
    entry = next(e for e in trainer.state.log_history if e.get("step") == 4 and "eval_accuracy" in e)
    scores = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert scores["Average accuracy"] == pytest.approx(entry["eval_accuracy"], abs=1e-4)
    assert "that of step 4 of 6: it has the\nlowest validation `loss`" in card.text


def test_the_card_takes_the_arguments_of_trainer_and_the_plain_trainer_has_one(make_trainer):
    trainer = squares_trainer(make_trainer, meta_every=0)
    trainer.create_model_card(
        language="en", license="apache-2.0", tags=["one"], model_name="Named", finetuned_from="some/model",
        tasks="image-classification", dataset_tags="some/data", dataset="Some data", dataset_args="default",
    )  # fmt: skip
    card = ModelCard.load(Path(trainer.args.output_dir) / "README.md")
    assert (card.data.language, card.data.license, card.data.base_model) == ("en", "apache-2.0", "some/model")
    assert card.data.datasets == ["some/data"]
    assert {"one", "plain-trainer"} <= set(card.data.tags)
    assert "# Named\n" in card.text
    assert "trained on Some data" in card.text
    assert "perturbation" not in card.content


def test_cards_name_the_method_that_trained(make_trainer):
    def text(**settings):
        trainer = squares_trainer(make_trainer, **settings)
        trainer.create_model_card()
        return (Path(trainer.args.output_dir) / "README.md").read_text()

    focal = text(meta_every=0, training_loss="focal", training_loss_options={"gamma": 1.0})
    assert '`training_loss="focal"` in place of cross-entropy (gamma = 1.0) on the training images' in focal
    assert "that the groups of the training images name" in text(meta_every=0, training_loss="group_dro")
    weighted = text(meta_network="weight", counterfactual_infills=[], factual_infills=[])
    assert "by Meta-Weight-Net" in weighted
    assert "shu2019metaweightnet" in weighted
    assert "perturbation_network/" not in weighted


def test_folders_of_this_machine_are_not_published(make_trainer, tmp_path):
    vit().save_pretrained(tmp_path / "start")
    model = type(vit()).from_pretrained(tmp_path / "start")
    trainer = squares_trainer(make_trainer, model, card_details=CardDetails(dataset_id=str(tmp_path)))
    trainer.save_model()
    trainer.create_model_card()
    folder = Path(trainer.args.output_dir)
    for name in ("README.md", "config.json", "preprocessor_config.json", "perturbation_network/config.json"):
        assert str(tmp_path) not in (folder / name).read_text()
    card = ModelCard.load(folder / "README.md")
    assert card.data.base_model is None
    assert card.data.license == "unknown"
    assert "from start." in card.text


@pytest.mark.pictures
def test_pictures_of_the_card_are_published_and_the_command_is_not(hub, make_trainer):
    pytest.importorskip("matplotlib")
    trainer = squares_trainer(make_trainer, card_details=CardDetails(command="train /home/me"))
    trainer.train()
    trainer.push_to_hub()
    files = hub.repositories[REPO].files
    shown = re.findall(r"!\[.+\]\((.+)\)", files["README.md"].decode())
    assert {"figures/loss.png", "figures/perturbation_by_group.png", "figures/response.png"} <= set(shown)
    assert set(shown) <= set(files)
    assert json.loads((Path(trainer.args.output_dir) / "_run.json").read_text())["command"] == "train /home/me"
    assert not any("_run.json" in file for file in files)


@pytest.mark.pictures
def test_without_matplotlib_the_card_says_nothing_of_pictures(make_trainer, monkeypatch):
    monkeypatch.setitem(sys.modules, "clp_hf.visualization.pictures", None)
    trainer = squares_trainer(make_trainer)
    trainer.train()
    trainer.create_model_card()
    folder = Path(trainer.args.output_dir)
    assert not (folder / "figures").exists()
    assert "icture" not in (folder / "README.md").read_text()


def test_the_license_is_that_of_the_base_model(hub, make_trainer):
    HfApi().create_repo("base")
    content = "---\nlicense: cc-by-4.0\n---\n\nA base model.\n"
    HfApi().upload_file(path_or_fileobj=content.encode(), path_in_repo="README.md", repo_id="tester/base")
    trainer = squares_trainer(make_trainer, card_details=CardDetails(base_model="tester/base"))
    trainer.push_to_hub()
    assert ModelCard.load(REPO).data.license == "cc-by-4.0"


def test_hub_names():
    assert hub_id("timm/resnet18.a1_in1k") == "timm/resnet18.a1_in1k"
    for other in (None, "", "resnet18", "/absolute/model", "./runs/model", "runs/a/b", str(Path(__file__).parent)):
        assert hub_id(other) is None


def test_templates(make_trainer):
    with pytest.raises(
        ValueError,
        match="no template 'erm'; choose one of afr, base, clp-head, clp, crt, dfr, group-dro-head, gsr, hsfm, jtt, "
        "l2rw, lws, meta-saug, meta-weight-net, mfrw-mes, plain-",
    ):
        render("erm")
