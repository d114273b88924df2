"""CLPHeadTrainer: it changes the head alone, saves an ordinary checkpoint, and says first what its data lack."""

import copy
import json

import pytest
import torch
from conftest import SIZE, Squares, resnet, vit
from huggingface_hub import ModelCard
from torch.utils.data import Subset
from transformers import AutoModelForImageClassification, ViTImageProcessor

from clp_hf.clp_head import CLPHeadArguments, CLPHeadTrainer
from clp_hf.features import extract_features
from clp_hf.hub.record import RunRecord
from clp_hf.metrics import GroupMetrics
from clp_hf.report import write_report

VALIDATION = Squares(36, start=500)


@pytest.fixture
def make(tmp_path):
    def make(model=None, train=None, meta=None, validation=VALIDATION, **settings):
        settings = {"use_cpu": True, "report_to": [], "disable_tqdm": True, "strength_steps": 3} | settings
        return CLPHeadTrainer(
            vit() if model is None else model,
            CLPHeadArguments(str(tmp_path / "run"), **settings),
            train_dataset=Squares(60) if train is None else train,
            meta_dataset=Squares(24, start=900) if meta is None else meta,
            eval_dataset=validation,
            processing_class=ViTImageProcessor(size={"height": SIZE, "width": SIZE}),
            compute_metrics=GroupMetrics(list("abc"), [f"{label}_{place}" for label in "abc" for place in "dl"]),
        )

    return make


class NoExtraction(Exception):
    """Features were computed."""


@pytest.fixture
def no_extraction(monkeypatch):
    """What is refused is refused before features are computed."""

    def refuse(*args, **kwargs):
        raise NoExtraction

    monkeypatch.setattr("clp_hf.features.trainer.extract_features", refuse)
    monkeypatch.setattr("clp_hf.features.causal.extract_features", refuse)


# ---- what it makes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", [vit, resnet])
def test_the_head_alone_changes_and_the_checkpoint_is_ordinary(make, tmp_path, network):
    trainer = make(network(), evidence=["background", "attribute", "bias"])
    before = copy.deepcopy(trainer.model.state_dict())
    trainer.evaluate()
    result = trainer.train()
    assert result.metrics["selection_score"] == trainer.result.score[0]
    after = trainer.model.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert len(changed) == 2
    assert all("classifier" in name for name in changed)
    metrics = trainer.evaluate()
    assert metrics["eval_worst_group_accuracy"] == pytest.approx(trainer.result.score[0])
    trainer.save_model()
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path / "run")
    features = extract_features(trainer.model, VALIDATION, trainer.args)
    head = trainer.result.head
    images = torch.stack([item["pixel_values"] for item in VALIDATION])
    with torch.no_grad():
        logits = loaded.eval()(pixel_values=images).logits
    torch.testing.assert_close(logits, features.features @ head.weight.T + head.bias, atol=1e-4, rtol=1e-4)


def test_card_record_and_report(make, tmp_path):
    trainer = make(evidence=["background", "bias"], ridges=[1e-3, 1e-1])
    trainer.save_metrics("eval", trainer.evaluate())
    trainer.save_metrics("train", trainer.train().metrics)
    trainer.save_state()
    metrics = trainer.evaluate()
    trainer.save_metrics("eval", metrics)
    trainer.save_or_push()
    card = ModelCard.load(tmp_path / "run" / "README.md")
    assert {"clp_hf", "clp-head"} <= set(card.data.tags)
    results = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert results["Worst-group accuracy"] == pytest.approx(metrics["eval_worst_group_accuracy"], abs=1e-4)
    assert "Of 2 settings by accuracy of the worst group in validation: " in card.text
    assert "24 clean images, given." in card.text
    assert "The head was trained on 2 draws of every image before the background of another class too." in card.text
    assert "- bias: it favours the label of " in card.text
    assert "learning_rate" not in card.text
    facts = RunRecord.load(tmp_path / "run").facts
    assert facts["strengths"] == trainer.result.strengths
    history = json.loads((tmp_path / "run" / "trainer_state.json").read_text())["log_history"]
    assert [entry["step"] for entry in history if "meta_loss" in entry] == [0, 1, 2, 3]
    page = write_report([tmp_path / "run"], tmp_path / "report.html").read_text()
    assert "CLP head" in page
    assert "24 clean images, given" in page


def test_without_masks_groups_or_validation_what_there_is_decides(make):
    plain, grouped = Squares(60, columns=()), Squares(60, columns=("group",))
    assert make().evidence == ["background"]
    assert make(train=grouped).evidence == ["attribute"]
    assert make(train=plain, meta=Squares(24, columns=(), start=900)).evidence == ["bias"]
    trainer = make(train=plain, meta=Squares(24, columns=(), start=900), validation=None)
    trainer.train()
    assert trainer.result.score == (-trainer.result.meta_loss,)
    assert trainer.rule.startswith("minus the loss of the meta images")
    assert make(evidence=["none"]).evidence == []


def test_groups_inside_classes_are_evidence_by_their_frequency(make):
    """As the fine classes of superclasses, which share no attribute."""

    def inside(label, group):
        return label, {0: 7, 1: 3, 2: 5, 3: 0, 4: 2, 5: 9}[group]

    trainer = make(train=relabelled(60, inside), meta=relabelled(24, inside, 900), evidence=["attribute"])
    trainer.train()
    assert trainer.attributes is None
    assert torch.isfinite(trainer.result.head.weight).all()


def test_without_a_meta_set_it_is_taken_out_of_the_training_set(make, tmp_path):
    args = CLPHeadArguments(str(tmp_path), meta_samples=3, use_cpu=True, report_to=[])
    trainer = CLPHeadTrainer(vit(), args, train_dataset=Squares(60))
    assert (len(trainer.train_dataset), len(trainer.meta_dataset)) == (42, 18)
    assert trainer.meta_source == "taken out of the training set"


def test_swapping_is_on_where_there_are_masks_and_can_be_switched_off(make, tmp_path):
    swapping, plain = make(), make(swapped_copies=0)
    for trainer in (swapping, plain):
        trainer.train()
    assert not torch.equal(swapping.result.head.weight, plain.result.head.weight)
    plain.create_model_card()
    text = (tmp_path / "run" / "README.md").read_text()
    assert "before the background of another class" not in text
    assert "It was trained on the meta images too" not in text


def test_meta_images_are_trained_on_where_there_is_nothing_else(make, tmp_path):
    weights = {}
    for name, options in (
        ("alone", {"evidence": [], "swapped_copies": 0}),
        ("swapped", {"evidence": []}),
        ("whole", {}),
    ):
        trainer = make(**options)
        trainer.train()
        weights[name] = trainer.result.settings.meta_weight
        trainer.create_model_card()
        text = (tmp_path / "run" / "README.md").read_text()
        assert ("It was trained on the meta images too" in text) == (name == "alone")
    assert weights == {"alone": 1, "swapped": 0, "whole": 0}


def test_a_second_run_takes_features_from_the_cache_and_is_the_same(make, tmp_path):
    runs, written = [make(), make()], []
    for trainer in runs:
        trainer.train()
        written.append({path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "features").iterdir()})
    assert len(written[0]) == 8  # images, backgrounds, and two draws and one of swapped ones; validation
    assert written[0] == written[1]
    assert torch.equal(*(trainer.result.head.weight for trainer in runs))


# ---- what it refuses -------------------------------------------------------------------------------------------------


def relabelled(length, change, start=0):
    data = Squares(length, start=start)
    data.labels, data.group = zip(*map(change, data.labels, data.group), strict=True)
    return data


WITHOUT = {
    "masks": ({"train": Squares(60, columns=("group",)), "evidence": ["background"]},
              "'background' needs a `mask` for every .*clp-hf masks.* With the data at hand goes attribute, bias"),
    "groups": ({"meta": Squares(24, columns=("mask",)), "evidence": ["attribute"]},
               "'attribute' needs the `group` of every meta image.*goes background, bias"),
    "a value in the meta set": (
        {"meta": Subset(Squares(24), [0, 1, 2, 6, 7, 8]), "train": Squares(60, start=80), "evidence": ["attribute"]},
        r"of value 1 \(group 1, 3, 5\) there is none. Give the meta set images of it, or raise meta_samples"),
    "a value more than once": (
        {"meta": Subset(Squares(24), [0, 1, 2, 6, 7, 8, 3]), "train": Squares(60, start=80), "evidence": ["attribute"]},
        r"of value 1 \(group 1, 3, 5\) there is one"),
    "two images of a class": ({"train": Subset(Squares(60), [*range(0, 60, 3), *range(1, 60, 3), 2])},
                              "of the training set class 2 has 1"),
    "a class in the meta set": ({"meta": Subset(Squares(24), range(0, 24, 3))}, "meta set has one class only"),
    "labels of the model": ({"train": relabelled(60, lambda label, group: (label + 1, group))}, "labels outside 0 … 2"),
}  # fmt: skip


@pytest.mark.parametrize(("settings", "message"), WITHOUT.values(), ids=WITHOUT)
def test_data_that_lack_what_is_needed(make, settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)


def test_images_in_two_sets(make):
    data = Squares(90)
    train = Subset(data, range(60))
    with pytest.raises(ValueError, match="24 of the 24 meta images are training images too, the first is meta image 0"):
        make(train=data, meta=Subset(data, range(24)))
    with pytest.raises(ValueError, match="2 of the 6 meta images are training images too, the first is meta image 1"):
        make(train=train, meta=Subset(Subset(data, [70, 3, 74, 75, 80, 7]), range(6)))
    with pytest.raises(ValueError, match="are validation images too"):
        make(train=train, meta=Subset(data, range(60, 90)), validation=Subset(data, range(80, 90)))
    make(train=train, meta=Subset(data, range(60, 90)))


class Masked(Squares):
    """All masks are of one value; or those of some images are missing."""

    def __init__(self, *args, value=0.0, missing=(), **kwargs):
        super().__init__(*args, **kwargs)
        self.value, self.missing = value, missing

    def __getitem__(self, index):
        item = super().__getitem__(index)
        item["mask"] = torch.full_like(item["mask"], self.value)
        if index in self.missing:
            del item["mask"]
        return item


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": Masked(60)}, "Masks, training set: 60 of 60 .* 60 are empty.*--mask_column none"),
        ({"meta": Masked(24, value=1.0, start=900)}, "Masks, meta set: 24 of 24 .* 24 cover the whole image"),
        ({"train": Masked(60, missing=[7])}, "Image 7 of the training set has no `mask`, and others have"),
    ],
)
def test_masks_that_are_of_no_use(make, no_extraction, settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings).train()


def test_a_head_without_bias(make, no_extraction):
    model = vit()
    model.classifier = torch.nn.Linear(16, 3, bias=False)
    with pytest.raises(ValueError, match="CLP trains weight and bias, and the final linear layer of this model has no"):
        make(model).train()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ridges": [0.0]}, "ridge is 0.0"),
        ({"ridges": []}, "ridges is empty"),
        ({"swapped_copies": -1}, "swapped_copies is -1"),
        ({"evidence": ["place"]}, "no evidence place"),
    ],
)
def test_bad_arguments(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        CLPHeadArguments(str(tmp_path), use_cpu=True, **change)


def test_no_card_before_training(make):
    with pytest.raises(ValueError, match="There is no CLP head to tell of yet"):
        make().create_model_card()
