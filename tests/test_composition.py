"""CLP together with the rest of a Trainer user's tools."""

import copy

import numpy as np
import optuna
import pytest
import timm
import torch
import torch.nn.functional as F
from conftest import SIZE, Squares, vit
from datasets import IterableDataset as StreamedDataset
from peft import LoraConfig, PeftModel, get_peft_model
from torch.utils.data import IterableDataset
from transformers import (
    AutoModelForImageClassification,
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
)

from clp_hf import PerturbationNetwork
from clp_hf.bilevel import step_sizes
from clp_hf.modeling import load_image_classifier

META_LP = {"counterfactual_infills": [], "factual_infills": []}
# plain SGD: Adam's first steps are signs, which turn a rounding error into a step
SGD = {"optim": "sgd", "lr_scheduler_type": "constant", "max_grad_norm": 0.0}


def parameters(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def trained(trainer):
    trainer.train()
    return trainer


def moved(module, before):
    return {name for name, parameter in module.named_parameters() if not torch.equal(parameter, before[name])}


def state(module):
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def logged(trainer, name):
    return [entry[name] for entry in trainer.state.log_history if name in entry]


# ---- parts of the classifier train -----------------------------------------------------------------------------------


def lora(target_modules=("q_proj", "v_proj"), modules_to_save=("classifier",)):
    return get_peft_model(
        vit(),
        LoraConfig(r=2, target_modules=list(target_modules), modules_to_save=list(modules_to_save), lora_dropout=0.1),
    )


def frozen_backbone():
    model = vit().requires_grad_(False)
    model.classifier.requires_grad_(True)
    return model


@pytest.mark.parametrize("build", [lora, frozen_backbone])
@pytest.mark.parametrize("settings", [{}, {"lookahead_scope": "head"}, {"hypergradient": "double_backward"}], ids=str)
def test_only_what_is_trainable_looks_ahead_and_moves(make_trainer, monkeypatch, build, settings):
    looked_ahead = set()

    def record(optimizer, parameters, *args, **kwargs):
        looked_ahead.update(parameters)
        return step_sizes(optimizer, parameters, *args, **kwargs)

    monkeypatch.setattr("clp_hf.algorithm.step_sizes", record)
    trainer = make_trainer(build(), **settings)
    trainable = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    before, network = state(trainer.model), state(trainer.perturbation_network)
    trainer.train()
    assert moved(trainer.model, before) == trainable
    assert moved(trainer.perturbation_network, network) == set(network)
    assert looked_ahead == ({"weight", "bias"} if settings.get("lookahead_scope") else trainable)
    assert min(logged(trainer, "hypergradient_indirect")) > 0


def test_an_adapter_is_saved_resumed_and_loaded_with_its_network(make_trainer, tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 2}
    whole = trained(make_trainer(lora(), **settings))
    resumed = make_trainer(lora(), **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert torch.equal(parameters(whole.model), parameters(resumed.model))
    assert torch.equal(parameters(whole.perturbation_network), parameters(resumed.perturbation_network))

    whole.save_model(str(tmp_path / "saved"))
    whole.create_model_card()
    loaded = PeftModel.from_pretrained(vit(), tmp_path / "saved")
    images = torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad():
        assert torch.equal(loaded.eval()(pixel_values=images).logits, whole.model.eval()(pixel_values=images).logits)
    network = PerturbationNetwork.from_pretrained(tmp_path / "saved")
    assert torch.equal(parameters(network), parameters(whole.perturbation_network))


def test_a_head_under_an_adapter_is_refused(make_trainer):
    with pytest.raises(ValueError, match=r"classifier.base_layer is the final linear layer.*modules_to_save"):
        make_trainer(lora(target_modules=["q_proj", "classifier"], modules_to_save=()))


def test_a_frozen_head_that_alone_should_look_ahead_is_refused(make_trainer):
    with pytest.raises(ValueError, match=r"the head, base_model\.model\.classifier, is frozen"):
        make_trainer(lora(modules_to_save=()), lookahead_scope="head")


# ---- how the passes run ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [vit, lambda: timm.create_model("test_vit", num_classes=3, img_size=SIZE)])
def test_gradient_checkpointing_trains_the_same_model(make_trainer, build):
    def run(**settings):
        torch.manual_seed(0)
        return parameters(trained(make_trainer(build(), max_steps=2, **settings, **SGD)).model)

    torch.testing.assert_close(run(gradient_checkpointing=True), run(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gradient_checkpointing_kwargs": {"use_reentrant": True}}, "set use_reentrant=False"),
        ({"hypergradient": "double_backward"}, "'forward' is as exact"),
    ],
)
def test_checkpointing_that_cannot_be_differentiated_is_refused(make_trainer, settings, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(gradient_checkpointing=True, **settings)
    make_trainer(gradient_checkpointing=True, meta_every=0, **settings)


def compiled_in_place():
    model = vit()
    model.vit.compile(backend="eager")
    return model


@pytest.mark.parametrize(
    ("build", "settings"),
    [
        (lambda: torch.compile(vit(), backend="eager"), {}),
        (compiled_in_place, {}),
        (vit, {"torch_compile": True, "torch_compile_backend": "eager"}),
    ],
    ids=["compiled module", "module.compile()", "torch_compile=True"],
)
def test_compilation_is_refused_with_the_reason(make_trainer, build, settings):
    with pytest.raises(ValueError, match=r"torch\.compile does not speed CLP up"):
        make_trainer(build(), **settings)


def test_the_plain_trainer_compiles(make_trainer):
    settings = {"meta_every": 0, "max_steps": 1, **SGD}
    compiled = make_trainer(torch_compile=True, torch_compile_backend="eager", **settings)
    torch.testing.assert_close(parameters(trained(compiled).model), parameters(trained(make_trainer(**settings)).model))


# ---- callbacks, evaluation, prediction -------------------------------------------------------------------------------


class WeightAverage(TrainerCallback):
    """An exponential moving average of the weights, in the model's place while it is evaluated."""

    def __init__(self, decay=0.5):
        self.decay, self.average, self.own = decay, None, None

    def on_step_end(self, args, state, control, model, **kwargs):
        weights = copy.deepcopy(model.state_dict())
        if self.average is None:
            self.average = weights
        for name, value in weights.items():
            self.average[name] = self.decay * self.average[name] + (1 - self.decay) * value
        if control.should_evaluate:
            self.own = weights
            model.load_state_dict(self.average)

    def on_evaluate(self, args, state, control, model, **kwargs):
        if self.own is not None:
            model.load_state_dict(self.own)
            self.own = None


def test_a_weight_average_is_evaluated_and_disturbs_nothing(make_trainer):
    settings = {"eval_strategy": "steps", "eval_steps": 2}
    average = WeightAverage()
    plain = trained(make_trainer(**settings))
    averaged = trained(make_trainer(callbacks=[average], **settings))
    assert torch.equal(parameters(averaged.model), parameters(plain.model))
    assert torch.equal(parameters(averaged.perturbation_network), parameters(plain.perturbation_network))
    assert logged(averaged, "eval_loss") != logged(plain, "eval_loss")
    averaged.model.load_state_dict(average.average)
    assert averaged.evaluate()["eval_loss"] == pytest.approx(logged(averaged, "eval_loss")[1])


def test_early_stopping_restores_the_best_classifier_and_its_network(make_trainer, tmp_path):
    networks = {}

    class Remember(TrainerCallback):
        def on_save(self, args, state, control, **kwargs):
            networks[state.global_step] = copy.deepcopy(trainer.perturbation_network.state_dict())

    trainer = make_trainer(
        max_steps=10,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="score",
        compute_metrics=lambda prediction: {"score": [0.1, 0.9, 0.5, 0.4][trainer.state.global_step - 1]},
        callbacks=[EarlyStoppingCallback(2), Remember()],
    )
    trainer.train()
    assert trainer.state.global_step == 4
    assert trainer.state.best_global_step == 2
    best = AutoModelForImageClassification.from_pretrained(tmp_path / "run" / "checkpoint-2")
    assert torch.equal(parameters(best), parameters(trainer.model))
    for name, value in trainer.perturbation_network.state_dict().items():
        assert torch.equal(value, networks[2][name]), name


def test_every_evaluation_set_has_its_metrics(make_trainer):
    def accuracy(prediction):
        labels = prediction.label_ids
        labels, groups = labels if isinstance(labels, tuple) else (labels, None)
        return {"images": len(labels), "groups": 0 if groups is None else len(np.unique(groups))}

    sets = {"grouped": Squares(24, start=1000), "plain": Squares(9, columns=(), start=2000)}
    trainer = make_trainer(
        eval_dataset=sets, compute_metrics=accuracy, max_steps=2, eval_strategy="steps", eval_steps=2
    )
    trainer.train()
    assert (logged(trainer, "eval_grouped_images"), logged(trainer, "eval_grouped_groups")) == ([24], [6])
    assert (logged(trainer, "eval_plain_images"), logged(trainer, "eval_plain_groups")) == ([9], [0])
    metrics = trainer.evaluate()
    assert metrics["eval_grouped_loss"] == pytest.approx(trainer.evaluate(sets["grouped"])["eval_loss"])


def test_predictions_are_those_of_the_classifier_alone(make_trainer):
    trainer = trained(make_trainer())
    data = Squares(10, start=3000)
    prediction = trainer.predict(data)
    images = torch.stack([data[index]["pixel_values"] for index in range(10)])
    with torch.no_grad():
        expected = trainer.model.eval()(pixel_values=images).logits
    np.testing.assert_allclose(prediction.predictions, expected, rtol=1e-5, atol=1e-6)
    labels, groups = prediction.label_ids
    assert labels.tolist() == data.labels
    assert groups.tolist() == data.group


def test_label_smoothing_holds_for_training_and_evaluation_but_not_for_the_meta_loss(make_trainer):
    settings = {"max_steps": 1, "meta_batch_size": 6, "meta_dataset": Squares(6, start=500), **META_LP, **SGD}
    trainer = make_trainer(label_smoothing_factor=0.3, perturbation_learning_rate=1e-30, **settings)
    model, batches = copy.deepcopy(trainer.model), []
    original = trainer._prepare_inputs
    trainer._prepare_inputs = lambda inputs: batches.append(original(inputs)) or batches[-1]
    trainer.train()

    def loss(batch, smoothing):
        logits = model(pixel_values=batch["pixel_values"]).logits
        return F.cross_entropy(logits, batch["labels"], label_smoothing=smoothing)

    training_loss = loss(batches[0], 0.3)
    assert logged(trainer, "loss") == [pytest.approx(training_loss.item(), abs=1e-4)]
    gradients = torch.autograd.grad(training_loss, list(model.parameters()))
    with torch.no_grad():
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter -= trainer.args.learning_rate * gradient
    torch.testing.assert_close(parameters(model), parameters(trainer.model), rtol=0, atol=1e-6)
    # the look-ahead is that very step, and the meta loss there asks for the labels as they are
    assert logged(trainer, "meta_loss") == [pytest.approx(loss(batches[1], 0.0).item(), abs=1e-4)]

    plain = Trainer(trainer.model, trainer.args, eval_dataset=Squares(24, columns=(), start=1000))
    assert trainer.evaluate()["eval_loss"] == pytest.approx(plain.evaluate()["eval_loss"])


@pytest.mark.parametrize("build", [vit, lambda: timm.create_model("test_vit", num_classes=3, img_size=SIZE)])
def test_class_names_survive_training_saving_and_loading(make_trainer, tmp_path, build):
    names = {0: "small", 1: "medium", 2: "large"}
    model = load_image_classifier(build()) if hasattr(build(), "pretrained_cfg") else build()
    model.config.id2label, model.config.label2id = names, {name: index for index, name in names.items()}
    trainer = trained(make_trainer(model, max_steps=1, save_strategy="steps", save_steps=1))
    trainer.save_model(str(tmp_path / "saved"))
    for folder in ("saved", "run/checkpoint-1"):
        config = AutoModelForImageClassification.from_pretrained(tmp_path / folder).config
        assert config.id2label == names
        assert config.label2id == {name: index for index, name in names.items()}


# ---- hyper-parameter search ------------------------------------------------------------------------------------------


def test_every_trial_of_a_search_is_a_run_of_its_own(make_trainer):
    """A trial equals a fresh trainer with its settings: no weight, statistic or meta batch of the trial before."""
    trials = [
        {"perturbation_hidden_size": 7, "meta_batch_size": 4, "learning_rate": 1e-2},
        {"perturbation_hidden_size": 3, "meta_batch_size": 9, "learning_rate": 3e-2},
    ]
    seen = {}

    class Remember(TrainerCallback):
        def on_train_end(self, args, state, control, model, **kwargs):
            seen[args.perturbation_hidden_size] = parameters(model), parameters(trainer.perturbation_network)

    trainer = make_trainer(model_init=lambda trial: vit(), callbacks=[Remember()], max_steps=2)
    best = trainer.hyperparameter_search(
        hp_space=lambda trial: trials[trial.suggest_int("settings", 0, 1)],
        n_trials=2,
        backend="optuna",
        direction="minimize",
        sampler=optuna.samplers.BruteForceSampler(),
    )
    assert best.hyperparameters["settings"] in (0, 1)
    for settings in trials:
        model, network = seen[settings["perturbation_hidden_size"]]
        fresh = trained(make_trainer(model_init=lambda: vit(), max_steps=2, **settings))
        assert torch.equal(network, parameters(fresh.perturbation_network))
        assert torch.equal(model, parameters(fresh.model))


def test_a_search_cannot_switch_clp_on(make_trainer):
    trainer = make_trainer(model_init=lambda trial: vit(), meta_every=0)
    with pytest.raises(ValueError, match="was 0 when the trainer was built"):
        trainer.hyperparameter_search(
            hp_space=lambda trial: {"meta_every": trial.suggest_int("meta_every", 1, 1)},
            n_trials=1,
            backend="optuna",
        )


# ---- data ------------------------------------------------------------------------------------------------------------


def squares(count):
    data = Squares(count)
    yield from (data[index] for index in range(count))


def streamed(count=60):
    return StreamedDataset.from_generator(squares, gen_kwargs={"count": count}).with_format("torch")


class Stream(IterableDataset):
    def __init__(self, items):
        self.items = items

    def __iter__(self):
        yield from self.items


@pytest.mark.parametrize("settings", [{}, {"dataloader_num_workers": 1, "evidence": ["background"]}], ids=str)
def test_a_stream_trains_as_a_map_style_set_in_its_order(make_trainer, settings):
    settings |= {"meta_dataset": Squares(12, start=500), "max_steps": 7}
    stream = trained(make_trainer(train_dataset=streamed(), **settings))
    stored = make_trainer(train_dataset=Squares(60), **settings)
    stored._get_train_sampler = lambda *args: None  # in order
    # of equal classes the shares are known to the one, counted by the other: 3, 3, 2 in the first batch
    stored.learner.statistics.counted = True
    stored.train()
    assert torch.equal(parameters(stream.model), parameters(stored.model))
    assert torch.equal(parameters(stream.perturbation_network), parameters(stored.perturbation_network))


def test_class_proportions_of_a_stream_are_counted_as_labels_come(make_trainer, tmp_path):
    items = [Squares(60)[index] for index in (0, 0, 0, 0, 0, 1, 1, 2)]  # five, two, one of a batch of eight
    settings = {"meta_dataset": Squares(6, start=500), "max_steps": 3, "save_strategy": "steps", "save_steps": 2}
    trainer = make_trainer(train_dataset=Stream(items * 3), **settings)
    assert trainer.learner.statistics.proportion.tolist() == pytest.approx([1 / 3] * 3)
    trainer.train()
    assert trainer.learner.statistics.proportion.tolist() == [5 / 8, 2 / 8, 1 / 8]
    trainer.create_model_card()

    resumed = make_trainer(train_dataset=Stream(items * 3), **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert resumed.learner.statistics.count.tolist() == [15, 6, 3]
    assert torch.equal(parameters(resumed.model), parameters(trainer.model))


def changed(item, **values):
    return {**item, **values}


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (list, {"meta_dataset": None}, "pass meta_dataset"),
        (list, {"train_sampling": "class"}, "is a stream, whose order is its own"),
        (list, {"class_prior": True}, "class_prior needs the class frequencies"),
        (lambda items: [], {}, "training set is empty"),
        (lambda items: [changed(item, labels=item["labels"] + 1) for item in items], {}, r"labels outside 0 … 2"),
        (lambda items: [{"pixel_values": item["pixel_values"]} for item in items], {}, "no `labels` column"),
        (lambda items: [changed(items[0], pixel_values=torch.full((3, SIZE, SIZE), torch.nan))], {}, "non-finite"),
    ],
    ids=["no meta set", "sampling", "class prior", "empty", "label range", "no labels", "pixels"],
)
def test_bad_streams_are_refused(make_trainer, change, settings, message):
    settings = {"meta_dataset": Squares(6, start=500)} | settings
    with pytest.raises(ValueError, match=message):
        make_trainer(train_dataset=Stream(change(list(squares(8)))), **settings)


def test_a_late_label_of_a_stream_that_is_no_class_is_refused_in_its_step(make_trainer):
    items = list(squares(60))
    items[50]["labels"] = 3
    trainer = make_trainer(train_dataset=Stream(items), meta_dataset=Squares(6, start=500), max_steps=8)
    with pytest.raises(ValueError, match=r"batch of step 6 has labels 0 … 3; the classes of the model are 0 … 2"):
        trainer.train()
