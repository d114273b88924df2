"""CLPTrainer against the algorithm written out by hand, against the plain Trainer, and against bad input."""

import copy
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from accelerate.state import AcceleratorState
from conftest import SIZE, Squares, resnet, vit
from torch import nn
from torch.utils.data import Subset
from transformers import AutoModelForImageClassification, EarlyStoppingCallback, Trainer, TrainerCallback

from clp_hf import CLPTrainer, PerturbationNetwork
from clp_hf.perturbation import training_characteristics
from clp_hf.perturbation.optimizers import PERTURBATION_BETAS
from clp_hf.perturbation.record import record_perturbation

META_LP = {"counterfactual_infills": [], "factual_infills": []}
SGD = {"optim": "sgd", "lr_scheduler_type": "constant", "max_grad_norm": 0.0}


def parameters(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def logged(trainer, name):
    return [entry[name] for entry in trainer.state.log_history if name in entry]


class Changed(Squares):
    """Squares with something wrong about item 5."""

    def __init__(self, change, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.change = change

    def __getitem__(self, index):
        item = super().__getitem__(index)
        if index == 5:
            self.change(item)
        return item


# ---- the algorithm ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reuse", [False, True], ids=["printed", "reuse"])
def test_a_step_is_algorithm_1(make_trainer, reuse):
    """One step in float64, Meta-LP, SGD with momentum, against Eq. 8 to 10 written out with double backward.

    With `reuse` Ω does not act before the next step.
    """
    data = Squares(32)
    meta = Squares(6, start=500)

    class Double(Squares):
        def __getitem__(self, index):
            item = super().__getitem__(index)
            item["pixel_values"] = item["pixel_values"].double()
            return item

    data.__class__ = meta.__class__ = Double
    trainer = make_trainer(
        vit(attn_implementation="eager").double(),
        data,
        meta_dataset=meta,
        meta_batch_size=6,
        per_device_train_batch_size=8,
        max_steps=1,
        optim_args="momentum=0.9",
        perturbation_bound=0.0,
        reuse_gradient=reuse,
        **META_LP,
        **SGD,
    )
    model, network = copy.deepcopy(trainer.model), copy.deepcopy(trainer.perturbation_network)
    with torch.no_grad():  # a network that already perturbs, so that every term matters
        network.output.weight.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
        trainer.perturbation_network.load_state_dict(network.state_dict())

    batches = []
    original = trainer._prepare_inputs
    trainer._prepare_inputs = lambda inputs: batches.append(original(inputs)) or batches[-1]
    statistics = copy.deepcopy(trainer.learner.statistics)
    trainer.train()
    batch, meta_batch = batches[0], batches[1]
    assert len(meta_batch["labels"]) == 6

    def forward(parameters, pixel_values):
        features = []
        handle = model.classifier.register_forward_pre_hook(lambda module, args: features.append(args[0]))
        logits = torch.func.functional_call(model, parameters, kwargs={"pixel_values": pixel_values}).logits
        handle.remove()
        return logits, features[0]

    model.train()
    weights = dict(model.named_parameters())
    logits, features = forward(weights, batch["pixel_values"])
    inputs = training_characteristics(logits, features, batch["labels"], model.classifier.weight, statistics)
    network.update_statistics(inputs)
    loss = F.cross_entropy(logits.float() + network(inputs, batch["labels"]), batch["labels"])
    gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
    rate = trainer.args.learning_rate
    lookahead = {
        name: weight - rate / (1 - 0.9) * gradient
        for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
    }
    meta_loss = F.cross_entropy(forward(lookahead, meta_batch["pixel_values"])[0].float(), meta_batch["labels"])
    hypergradient = torch.autograd.grad(meta_loss, list(network.parameters()), retain_graph=True)
    before_its_step = network(inputs, batch["labels"]).detach()
    assert logged(trainer, "meta_loss")[0] == pytest.approx(meta_loss.item(), rel=1e-5)
    norm = torch.cat([part.flatten() for part in hypergradient]).norm().item()
    assert logged(trainer, "hypergradient_indirect")[0] == pytest.approx(norm, rel=1e-4)

    optimizer = torch.optim.AdamW(
        network.parameters(), lr=trainer.args.perturbation_learning_rate, betas=PERTURBATION_BETAS, weight_decay=0.0
    )
    for parameter, gradient in zip(network.parameters(), hypergradient, strict=True):
        parameter.grad = gradient
    optimizer.step()
    for ours, theirs in zip(network.parameters(), trainer.perturbation_network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)

    delta = before_its_step if reuse else network(inputs, batch["labels"]).detach()
    final = F.cross_entropy(logits.float() + delta, batch["labels"])
    gradients = torch.autograd.grad(final, list(weights.values()))
    for (name, trained), before, gradient in zip(
        trainer.model.named_parameters(), weights.values(), gradients, strict=True
    ):
        torch.testing.assert_close(trained.data, before.data - rate * gradient, rtol=0, atol=1e-7, msg=name)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"reuse_gradient": True},
        {"reuse_gradient": True, "gradient_accumulation_steps": 2, "lookahead_scope": "head"},
        {"lookahead_scope": "head"},
        {"perturb_meta_logits": True},
        {"lookahead": "sgd"},
        {"meta_every": 2},
        {"gradient_accumulation_steps": 2},
        {"condition_on_label": True},
        {"perturbed_logits": "own", "class_prior": True},
        {"perturbed_logits": "own", "evidence": ["background"]},
        {"saliency_weight": 1.0, "saliency_batch_size": 4},
        {"saliency_weight": 1.0, "lookahead_scope": "head"},
        {"counterfactual_infills": ["grey", "random", "shuffle"], "factual_infills": ["random", "shuffle", "fgsm"]},
        {"counterfactual_infills": ["inpaint"], "factual_infills": []},
        {"mask_shape": "exact"},
        META_LP,
        {"characteristics": ["loss", "class_proportion"]},
        {"label_smoothing_factor": 0.1},
        {"evidence": ["background"]},
        {"evidence": ["background"], "lookahead_scope": "head", "gradient_accumulation_steps": 2},
        {"lookahead": "converged", "evidence": ["background"], "saliency_weight": 1.0},
        {"lookahead": "converged", "gradient_accumulation_steps": 2},
    ],
    ids=lambda settings: "-".join(settings) or "default",
)
@pytest.mark.parametrize("model", [vit, resnet])
def test_both_networks_move(make_trainer, model, settings):
    trainer = make_trainer(model(), **settings)
    before = copy.deepcopy(trainer.model), copy.deepcopy(trainer.perturbation_network)
    trainer.train()
    for old, new in zip(before, (trainer.model, trainer.perturbation_network), strict=True):
        for (name, parameter), original in zip(new.named_parameters(), old.parameters(), strict=True):
            assert torch.isfinite(parameter).all(), name
            # a bias that batch normalisation or the softmax of attention removes has a zero gradient
            assert not torch.equal(parameter, original) or name.endswith(("key.bias", "k_proj.bias")), name
    assert logged(trainer, "meta_updates_skipped") == [0.0] * len(logged(trainer, "meta_updates_skipped"))
    assert (max(logged(trainer, "hypergradient_direct")) > 0) == bool(settings.get("perturb_meta_logits"))
    assert set(trainer.predict(Squares(6)).metrics) >= {"test_loss"}


def run_weights(make_trainer, model=None, **settings):
    trainer = make_trainer(model, **settings)
    trainer.train()
    return parameters(trainer.model)


@pytest.mark.parametrize("reuse", [False, True], ids=["printed", "reuse"])
@pytest.mark.parametrize("model", [vit, resnet])
def test_engines_and_recomputation_train_the_same_model(make_trainer, model, reuse):
    def run(**settings):
        # plain SGD: Adam's first steps are signs, which turn a rounding error into a step
        return run_weights(make_trainer, model(), reuse_gradient=reuse, **settings, **SGD)

    reference = run()
    torch.testing.assert_close(run(recompute_training_forward=True), reference)
    torch.testing.assert_close(run(hypergradient="double_backward"), reference, rtol=1e-2, atol=1e-4)
    torch.testing.assert_close(run(hypergradient="finite_difference"), reference, rtol=1e-2, atol=5e-3)
    assert not torch.equal(run(**META_LP), reference)


def test_batch_norm_statistics_move_once_a_step(make_trainer):
    trainer = make_trainer(resnet(), max_steps=3, saliency_weight=0.5, factual_infills=["fgsm"])
    trainer.train()
    counts = [b.item() for name, b in trainer.model.named_buffers() if name.endswith("num_batches_tracked")]
    assert counts == [3] * len(counts)


def test_meta_every_zero_is_the_plain_trainer(make_trainer):
    trainer = make_trainer(meta_every=0)
    plain = Trainer(
        vit(),
        trainer.args,
        train_dataset=trainer.train_dataset,
        eval_dataset=trainer.eval_dataset,
        data_collator=lambda items: {
            "pixel_values": torch.stack([item["pixel_values"] for item in items]),
            "labels": torch.tensor([item["labels"] for item in items]),
        },
    )
    trainer.train()
    plain.train()
    assert torch.equal(parameters(trainer.model), parameters(plain.model))
    assert trainer.evaluate()["eval_loss"] == plain.evaluate()["eval_loss"]
    assert trainer.perturbation_network is None


def test_accumulated_equals_whole(make_trainer):
    """Without a perturbation yet (Ω starts at zero and learns at rate ~0) accumulation must not change the step."""
    settings = {"perturbation_learning_rate": 1e-30, **SGD}
    whole = run_weights(make_trainer, per_device_train_batch_size=8, **settings)
    parts = run_weights(make_trainer, per_device_train_batch_size=2, gradient_accumulation_steps=4, **settings)
    torch.testing.assert_close(whole, parts, rtol=1e-4, atol=1e-6)


def test_a_run_is_a_function_of_its_seed(make_trainer):
    assert torch.equal(run_weights(make_trainer), run_weights(make_trainer))
    workers = run_weights(make_trainer, dataloader_num_workers=2)
    assert torch.equal(run_weights(make_trainer), workers)


def test_non_finite_meta_loss_skips_the_update_and_is_counted(make_trainer):
    trainer = make_trainer(max_steps=3)
    before = copy.deepcopy(trainer.perturbation_network.state_dict())
    original = trainer.learner._meta_loss
    trainer.learner._meta_loss = lambda *args: original(*args) * float("nan")
    trainer.train()
    assert logged(trainer, "meta_updates_skipped") == [1.0] * 3
    assert torch.equal(trainer.perturbation_network.output.weight, before["output.weight"])
    assert torch.isfinite(parameters(trainer.model)).all()


def test_log_names_groups_and_the_signal(make_trainer):
    trainer = make_trainer(max_steps=4)
    trainer.train()
    entry = trainer.state.log_history[0]
    assert {"meta_loss", "perturbation_size", "hypergradient_direct", "hypergradient_indirect"} <= set(entry)
    groups = {name.rsplit("_", 1)[1] for name in entry if name.startswith("signal_group_")}
    assert groups
    assert groups == {name.rsplit("_", 1)[1] for name in entry if name.startswith("perturbation_group_")}


class SomeNoisy(Squares):
    def __getitem__(self, index):
        return super().__getitem__(index) | {"noisy": index % 4 == 0}


def test_log_tells_whose_loss_the_perturbation_raises(make_trainer, monkeypatch):
    trainer = make_trainer(train_dataset=SomeNoisy(60), max_steps=4, logging_steps=2, eval_dataset=SomeNoisy(24))
    recorded = []

    def recording(means, network, logits, perturbation, batch):
        losses = [
            torch.nn.functional.cross_entropy(of, batch["labels"], reduction="none")
            for of in (logits, logits + perturbation)
        ]
        recorded.extend(zip(batch["noisy"].tolist(), (losses[1] > losses[0]).tolist(), strict=True))
        record_perturbation(means, network, logits, perturbation, batch)

    monkeypatch.setattr("clp_hf.algorithm.record_perturbation", recording)
    trainer.train()
    trainer.evaluate()  # neither of them is a column of the model
    for step, of_log in enumerate((recorded[:16], recorded[16:])):
        for name, wanted in (("clean", False), ("noisy", True)):
            expected = np.mean([raised for noisy, raised in of_log if noisy == wanted])
            assert logged(trainer, f"loss_raised_{name}")[step] == pytest.approx(expected)
    assert 0 < sum(raised for _, raised in recorded) < 32


def test_gradient_clipping_scheduler_evaluation_best_model_and_callbacks(make_trainer):
    def worst_group(prediction):
        labels, groups = prediction.label_ids
        correct = prediction.predictions.argmax(-1) == labels
        return {"worst_group_accuracy": min(correct[groups == group].mean() for group in np.unique(groups))}

    trainer = make_trainer(
        max_steps=6,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        max_grad_norm=0.1,
        lr_scheduler_type="cosine",
        load_best_model_at_end=True,
        metric_for_best_model="worst_group_accuracy",
        compute_metrics=worst_group,
        callbacks=[EarlyStoppingCallback(10)],
    )
    trainer.train()
    scores = logged(trainer, "eval_worst_group_accuracy")
    assert len(scores) == 3
    assert trainer.state.best_metric == max(scores)
    assert trainer.evaluate()["eval_worst_group_accuracy"] == max(scores)


def test_model_and_network_are_saved_side_by_side(make_trainer, tmp_path):
    trainer = make_trainer()
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    loaded = type(trainer.model).from_pretrained(tmp_path / "saved")
    assert torch.equal(parameters(loaded), parameters(trainer.model))
    network = PerturbationNetwork.from_pretrained(tmp_path / "saved" / "perturbation_network")
    assert torch.equal(parameters(network), parameters(trainer.perturbation_network))


@pytest.mark.parametrize("evidence", [[], ["background"]], ids=str)
def test_resumed_equals_uninterrupted(make_trainer, tmp_path, evidence):
    settings = {
        "save_strategy": "steps", "save_steps": 2, "max_steps": 5, "evidence": evidence,
        "counterfactual_infills": ["random"],
    }  # fmt: skip
    whole = make_trainer(**settings)
    whole.train()
    resumed = make_trainer(**settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert torch.equal(parameters(whole.model), parameters(resumed.model))
    assert torch.equal(parameters(whole.perturbation_network), parameters(resumed.perturbation_network))


def test_model_init_gets_a_new_perturbation_network(make_trainer):
    trainer = make_trainer(model_init=lambda: vit())
    trainer.train()
    assert any(module is trainer.learner.classifier.head for module in trainer.model.modules())


def test_meta_set_is_taken_out_of_the_training_set(make_trainer):
    trainer = make_trainer(train_dataset=Squares(60), meta_samples=2)
    assert len(trainer.learner.meta_batches.meta_set) == 12
    assert len(trainer.train_dataset) == 48
    assert not set(trainer.train_dataset.indices) & set(trainer.learner.meta_batches.meta_set.dataset.indices)


# ---- bad input, before training --------------------------------------------------------------------------------------


def fill(name, value):
    return lambda item: item.update({name: value})


BAD_DATA = {
    "no mask": (Squares(60, columns=()), {}, "choose Meta-LP"),
    "non-finite pixels": (
        Changed(lambda item: item["pixel_values"].fill_(float("nan")), 60),
        {},
        r"Item 5 of the training set has non-finite",
    ),
    "mask of another size": (
        Changed(fill("mask", torch.ones(1, 8, 8)), 60),
        {},
        r"its mask is \(1, 8, 8\), its image \(3, 16, 16\)",
    ),
    "one class": (Subset(Squares(60), range(0, 60, 3)), META_LP, "one class only"),
    "batch of one": (None, {"per_device_train_batch_size": 1}, "Batch normalisation needs two images"),
    "last batch of one": (Squares(45), META_LP | {"meta_samples": 2}, "dataloader_drop_last=True"),
    "too few for a meta set": (Squares(60), {"meta_samples": 20, **META_LP}, "lower meta_samples"),
}


@pytest.mark.parametrize(("data", "settings", "message"), BAD_DATA.values(), ids=BAD_DATA)
def test_bad_training_data_is_refused(make_trainer, data, settings, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(resnet(), data, **settings)


def test_background_evidence_needs_training_masks(make_trainer):
    with pytest.raises(ValueError, match="for every training image"):
        make_trainer(train_dataset=Squares(60, columns=("group",)), meta_dataset=Squares(6), evidence=["background"])


def relabelled(change):
    data = Squares(60)
    data.labels = [change(label) for label in data.labels]
    return data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (relabelled(lambda label: label + 1), r"labels outside 0 … 2.*item 2 has 3"),
        (relabelled(float), "labels of the training set are float64"),
    ],
)
def test_bad_labels_are_refused(make_trainer, data, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(train_dataset=data, meta_dataset=Squares(6))


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        (Subset(Squares(60), [0, 1, 3, 4]), "meta set has no image of class 2"),
        (Subset(Squares(60), []), "meta set is empty"),
        (Changed(fill("mask", torch.zeros(1, SIZE, SIZE)), 6, num_labels=3), None),
    ],
)
def test_bad_meta_sets(make_trainer, meta, message):
    if message is None:  # one empty mask: that image is used unaugmented, and counted
        assert make_trainer(meta_dataset=meta).learner.meta_batches.meta_set.maskable.tolist() == [True] * 5 + [False]
    else:
        with pytest.raises(ValueError, match=message):
            make_trainer(meta_dataset=meta)


def test_non_finite_pixels_beyond_the_first_are_refused_in_their_step(make_trainer):
    data = Squares(60)
    original = data.__class__.__getitem__
    data.__class__ = type(
        "Late",
        (Squares,),
        {
            "__getitem__": lambda self, index: (
                original(self, index)
                | ({"pixel_values": torch.full((3, SIZE, SIZE), float("inf"))} if index > 40 else {})
            )
        },
    )
    trainer = make_trainer(train_dataset=data, meta_dataset=Squares(6), max_steps=8)
    with pytest.raises(ValueError, match="Non-finite pixels in a training batch"):
        trainer.train()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"counterfactual_infills": ["blur"]}, "Unknown counterfactual infill 'blur'; valid are 'grey'"),
        ({"factual_infills": ["blur"]}, "valid are"),
        ({"characteristics": ["hue"]}, "one or more of loss"),
        ({"lookahead": "adam"}, "match, sgd"),
        ({"lookahead_scope": "tail"}, "full, head"),
        ({"hypergradient": "reverse"}, "forward, finite_difference, double_backward"),
        ({"mask_shape": "circle"}, "box, exact"),
        ({"evidence": ["background"], "counterfactual_infills": []}, "needs counterfactual_infills"),
        ({"evidence": ["background"], "perturb_meta_logits": True}, "set perturb_meta_logits=False"),
        ({"meta_every": -1}, "expected 0 or more"),
        ({"meta_batch_size": 0}, "expected 1 or more"),
        ({"perturbation_learning_rate": 0.0}, "expected more than 0"),
    ],
)
def test_bad_settings_are_refused(make_trainer, settings, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(**settings)


def test_data_parallel_is_refused(make_trainer, monkeypatch):
    monkeypatch.setattr("clp_hf.training_args.CLPTrainingArguments.n_gpu", 2)
    with pytest.raises(ValueError, match="accelerate launch"):
        make_trainer()


def test_a_model_in_data_parallel_is_refused(make_trainer):
    with pytest.raises(ValueError, match="Pass the module inside it"):
        make_trainer(nn.DataParallel(vit()))


def test_a_plain_timm_model_trains_saves_and_loads(make_trainer, tmp_path):
    torch.manual_seed(0)
    trainer = make_trainer(timm.create_model("mobilenetv2_035", num_classes=3), lookahead_scope="head")
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path / "saved")
    images = torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images).logits, trainer.model.eval()(images).logits)


def test_model_without_a_final_linear_layer_is_refused(make_trainer):
    model = vit()
    model.classifier = nn.Sequential(model.classifier, nn.Tanh())
    with pytest.raises(ValueError, match="ViTForImageClassification has no final linear layer"):
        make_trainer(model)


def test_the_learning_rate_falls_by_ten_where_asked(make_trainer):
    settings = {"max_steps": 10, "lr_scheduler_type": "constant", "learning_rate": 0.1, "meta_every": 0}
    trainer = make_trainer(lr_decay_at=[0.6, 0.8], **settings)
    trainer.train()
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
    assert rates == pytest.approx([0.1] * 6 + [0.01] * 2 + [0.001] * 2)
    with pytest.raises(ValueError, match=r"lr_decay_at is \[120\]; expected fractions"):
        make_trainer(lr_decay_at=[120])


def test_the_rate_of_the_perturbation_network_follows_the_schedule_where_asked(make_trainer):
    def trained(**settings):
        trainer = make_trainer(max_steps=10, meta_every=5, **SGD, **settings)
        trainer.train()
        return trainer.learner.optimizer.param_groups[0]["lr"]

    assert trained(lr_decay_at=[0.4]) == 1e-3
    assert trained(lr_decay_at=[0.4], perturbation_follows_schedule=True) == pytest.approx(1e-4)


def test_plain_sgd_moves_the_perturbation_network_by_its_rate_times_the_hypergradient(make_trainer):
    trainer = make_trainer(max_steps=1, perturbation_optim="sgd", perturbation_learning_rate=7.0, **META_LP, **SGD)
    start = parameters(trainer.perturbation_network)
    trainer.train()
    moved = (parameters(trainer.perturbation_network) - start).norm().item()
    assert moved == pytest.approx(7.0 * logged(trainer, "hypergradient_indirect")[0], rel=1e-4)
    assert moved > 0
    with pytest.raises(ValueError, match="perturbation_optim is 'adam'; choose one of adamw, sgd"):
        make_trainer(perturbation_optim="adam")


def test_what_is_attacked_is_the_classifier_as_it_will_be_used(make_trainer):
    """Few images of a meta batch are attacked: they are no batch to normalise by."""
    trainer = make_trainer(resnet(), counterfactual_infills=[], factual_infills=["fgsm"], max_steps=1)
    batches, seen = trainer.learner.meta_batches, []
    draw = batches.draw

    def drawn(logits_fn, donors):
        images = donors["pixel_values"]
        seen.append((logits_fn(images), torch.cat([logits_fn(image[None]) for image in images])))
        assert trainer.model.training
        return draw(logits_fn, donors)

    batches.draw = drawn
    trainer.train()
    torch.testing.assert_close(*seen[0], rtol=1e-4, atol=1e-5)


def test_the_meta_loss_is_that_of_the_classifier_as_it_will_be_used(make_trainer):
    """At rate 0 the look-ahead stays in place: what is logged is the loss in evaluation mode, running statistics."""
    meta = Squares(12, start=500)
    settings = {"meta_dataset": meta, "meta_batch_size": 12, "max_steps": 1, "learning_rate": 0.0, **META_LP, **SGD}
    trainer, as_in_training = (make_trainer(resnet(), **settings, meta_in_training_mode=mode) for mode in (False, True))
    trainer.train()
    as_in_training.train()
    items = [meta[index] for index in range(len(meta))]
    images, labels = torch.stack([item["pixel_values"] for item in items]), [item["labels"] for item in items]
    model = trainer.model.eval()
    with torch.no_grad():
        expected = F.cross_entropy(model(images).logits, torch.tensor(labels)).item()
        in_training = F.cross_entropy(model.train()(images).logits, torch.tensor(labels)).item()
    assert logged(trainer, "meta_loss") == [pytest.approx(expected, rel=1e-4)]
    assert in_training != pytest.approx(expected, rel=1e-3)
    assert logged(as_in_training, "meta_loss") == [pytest.approx(in_training, rel=1e-4)]


def test_perturbation_starts_where_asked_and_training_is_plain_before(make_trainer):
    """The plain run ends where the deferred one begins: same weights; then Ω learns, on the remaining steps alone."""
    at_start = {}

    class Snapshot(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            if state.global_step == 3:
                at_start.update({name: value.clone() for name, value in model.state_dict().items()})

    data = Squares(60)
    meta = Squares(12, start=500)
    settings = {"train_dataset": data, "meta_dataset": meta, "max_steps": 6, **META_LP, **SGD}
    deferred = make_trainer(vit(), perturbation_start=0.5, callbacks=[Snapshot()], **settings)
    deferred.train()
    early = dict(at_start)
    plain = make_trainer(vit(), callbacks=[Snapshot()], **settings | {"meta_every": 0, "meta_dataset": None})
    plain.train()
    assert all(torch.equal(early[name], value) for name, value in at_start.items())
    assert deferred.perturbation_network.num_updates == 3
    logged = ["meta_loss" in entry for entry in deferred.state.log_history if "loss" in entry]
    assert logged == [False] * 3 + [True] * 3
    with pytest.raises(ValueError, match=r"perturbation_start is 1.0; expected a fraction of training"):
        make_trainer(perturbation_start=1.0)


def test_the_class_prior_is_that_of_the_training_set_without_the_meta_images(make_trainer):
    data = Squares(60, columns=("mask",))
    data.labels = [0] * 40 + [1] * 14 + [2] * 6
    trainer = make_trainer(train_dataset=data, class_prior=True)
    shares = torch.tensor([38, 12, 4]) / 54
    torch.testing.assert_close(trainer.perturbation_network.log_prior, shares.log())
    trainer.train()
    torch.testing.assert_close(trainer.perturbation_network.log_prior, shares.log())  # not trained
    with pytest.raises(ValueError, match="class_prior is of the training set only"):
        make_trainer(class_prior=True, perturb_meta_logits=True)


@pytest.fixture(params=["fsdp", "deepspeed"])
def sharding(request, monkeypatch):
    """accelerate starts neither on a CPU: the flag it would set is set by hand."""
    create = CLPTrainer.create_accelerator_and_postprocess

    def sharded(self):
        create(self)
        setattr(self, f"is_{request.param}_enabled", True)

    monkeypatch.setattr(CLPTrainer, "create_accelerator_and_postprocess", sharded)
    return request.param


def test_a_sharded_network_that_looks_ahead_whole_is_refused(make_trainer, sharding):
    with pytest.raises(ValueError, match=r"does not run under (FSDP|DeepSpeed).*lookahead_scope='head'"):
        make_trainer()


HEAD = {"lookahead_scope": "head"}


@pytest.mark.parametrize("sharding", ["fsdp"], indirect=True)
@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (HEAD | {"saliency_weight": 1.0}, "saliency_weight=0"),
        (HEAD | {"factual_infills": ["fgsm"]}, "other factual_infills"),
        (HEAD | {"train_infills": ["fgsm"]}, "other train_infills"),
        (HEAD | {"evidence": ["background"], "evidence_network": "initial"}, "evidence_network='current'"),
        (HEAD, None),
        ({"lookahead": "converged"}, None),
        ({"meta_every": 0}, None),
    ],
)
def test_a_head_looks_ahead_on_a_sharded_network_of_which_only_forward_passes_are_needed(
    make_trainer, sharding, settings, told
):
    with pytest.raises(ValueError, match=f"does not run under FSDP.*{told}") if told else nullcontext():
        make_trainer(**settings)


@pytest.mark.parametrize("sharding", ["fsdp"], indirect=True)
@pytest.mark.parametrize(
    ("plugin", "told"),
    [
        ({"fsdp_version": 1, "cpu_ram_efficient_loading": False}, "fsdp_version: 2"),
        ({"fsdp_version": 2, "cpu_ram_efficient_loading": True}, "fsdp_cpu_ram_efficient_loading: false"),
    ],
)
def test_fsdp_is_the_second_with_weights_in_every_process(make_trainer, monkeypatch, sharding, plugin, told):
    monkeypatch.setattr(
        AcceleratorState, "fsdp_plugin", SimpleNamespace(activation_checkpointing=False, **plugin), raising=False
    )
    with pytest.raises(ValueError, match=f"does not run under FSDP.*{told}"):
        make_trainer(**HEAD)
