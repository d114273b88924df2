"""Every method to compare with, trained by the trainer that trains CLP."""

import copy

import pytest
import torch
import torch.nn.functional as F
from conftest import Squares, resnet, vit

from clp_hf.experiment import METHODS, STAGED
from clp_hf.losses import TRAINING_LOSSES, build_loss
from clp_hf.losses.objective import LossObjective

SGD = {"optim": "sgd", "lr_scheduler_type": "constant", "max_grad_norm": 0.0}
CHECKPOINTS = {"save_strategy": "steps", "save_steps": 2, "max_steps": 3}


def parameters(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def loss_settings(name, **options):
    return {"meta_every": 0, "training_loss": name, "training_loss_options": options or None}


def test_every_loss_is_a_method():
    every = [*METHODS.values(), *(stages.settings for stages in STAGED.values())]
    assert {settings.get("training_loss", "") for settings in every} >= set(TRAINING_LOSSES)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_and_is_evaluated_by_cross_entropy(make_trainer, name):
    trainer = make_trainer(resnet(), max_steps=2, **METHODS[name])
    before = parameters(trainer.model)
    trainer.train()
    after = parameters(trainer.model)
    assert torch.isfinite(after).all()
    assert (after != before).float().mean() > 0.5
    batch = trainer.data_collator([trainer.eval_dataset[index] for index in range(len(trainer.eval_dataset))])
    with torch.no_grad():
        logits = trainer.model.eval()(batch["pixel_values"]).logits
    assert trainer.evaluate()["eval_loss"] == pytest.approx(F.cross_entropy(logits, batch["labels"]).item(), rel=1e-4)


@pytest.mark.parametrize("name", ["class_balanced", "ldam"])
def test_accumulated_equals_whole(make_trainer, name):
    def train(**settings):
        trainer = make_trainer(train_dataset=Squares(50), max_steps=2, **loss_settings(name), **SGD, **settings)
        trainer.train()
        return parameters(trainer.model)

    parts = train(per_device_train_batch_size=2, gradient_accumulation_steps=4)
    torch.testing.assert_close(train(per_device_train_batch_size=8), parts, rtol=1e-4, atol=1e-6)


def test_one_step_is_a_step_on_the_formula(make_trainer):
    """Focal loss with SGD, by hand; so that neither labels nor logits are those of another loss."""
    trainer = make_trainer(vit(), max_steps=1, **loss_settings("focal", gamma=1.0), **SGD)
    model, batches = copy.deepcopy(trainer.model).train(), []
    original = trainer._prepare_inputs
    trainer._prepare_inputs = lambda inputs: batches.append(original(inputs)) or batches[-1]
    trainer.train()
    logits = model(batches[0]["pixel_values"]).logits
    p = logits.softmax(-1).gather(1, batches[0]["labels"][:, None])
    (-(1 - p) * p.log()).mean().backward()
    for trained, parameter in zip(trainer.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(trained.data, parameter.data - trainer.args.learning_rate * parameter.grad)


def test_losses_see_float32_logits_under_autocast(make_trainer):
    trainer = make_trainer(bf16=True, max_steps=1, **loss_settings("focal"))
    seen = []
    trainer.learner.training_loss.register_forward_pre_hook(lambda module, args: seen.append(args[0].dtype))
    trainer.train()
    assert seen == [torch.float32]


def test_ldam_trains_a_cosine_head_that_is_an_ordinary_one(make_trainer):
    trainer = make_trainer(max_steps=3, **loss_settings("ldam"))
    cosines = []
    trainer.learner.training_loss.register_forward_pre_hook(lambda module, args: cosines.append(args[0]))
    trainer.train()
    head = trainer.model.classifier
    torch.testing.assert_close(head.weight.norm(dim=1), torch.ones(3))
    assert head.bias.tolist() == [0.0, 0.0, 0.0]
    assert all(batch.abs().max() <= 1 + 1e-5 for batch in cosines)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_head_of_unit_rows_begins_as_it_is(dtype):
    """To bring it to unit length again would change its last digits, and a resumed run is not the uninterrupted one."""
    head = torch.nn.Linear(37, 500, dtype=dtype)
    objective = LossObjective("cosine", build_loss("cosine", torch.arange(500), 500), head)
    found = []
    for _ in range(2):
        objective.begin(torch.optim.SGD(head.parameters()))
        found.append(head.weight.clone())
    torch.testing.assert_close(found[0].norm(dim=1), torch.ones(500, dtype=dtype))
    assert torch.equal(*found)


def test_deferred_weights_know_how_far_training_is(make_trainer):
    trainer = make_trainer(max_steps=4, gradient_accumulation_steps=2, **loss_settings("ldam_drw"))
    progress = []
    trainer.learner.training_loss.register_forward_pre_hook(lambda module, args: progress.append(module.progress))
    trainer.train()
    assert progress == [0.0, 0.0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75]


@pytest.mark.parametrize("name", ["group_dro", "lisa", "ldam_drw", "isda"])
def test_resumed_equals_uninterrupted(make_trainer, tmp_path, name):
    settings = {**CHECKPOINTS, **loss_settings(name), "train_sampling": "group"}
    whole = make_trainer(**settings)
    whole.train()
    resumed = make_trainer(**settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert torch.equal(parameters(whole.model), parameters(resumed.model))
    states = (trainer.learner.training_loss.state_dict() for trainer in (whole, resumed))
    assert all(torch.equal(one, other) for one, other in zip(*map(dict.values, states), strict=True))
    if name == "isda":
        assert whole.learner.training_loss.moments.counts.sum() == 24  # images of all steps
    if name == "group_dro":
        assert whole.learner.training_loss.weights.unique().numel() > 1


def test_features_and_weight_are_those_of_the_head(make_trainer):
    trainer = make_trainer(max_steps=1, **loss_settings("isda"))
    seen = []

    def look(module, args):
        logits, _, _, features, weight = args
        seen.append(all(tensor.requires_grad for tensor in (logits, features, weight)))
        torch.testing.assert_close(logits, features @ weight.T + trainer.model.classifier.bias)

    trainer.learner.training_loss.register_forward_pre_hook(look)
    trainer.train()
    assert seen == [True]


def test_resuming_from_another_method_is_refused(make_trainer, tmp_path):
    make_trainer(meta_every=0, **CHECKPOINTS).train()
    trainer = make_trainer(**CHECKPOINTS, **loss_settings("group_dro"))
    with pytest.raises(ValueError, match="not written with training_loss='group_dro'"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"training_loss": "hinge"}, "training_loss is 'hinge'; choose one of cross_entropy, class_balanced"),
        ({"training_loss": "focal"}, "goes with meta_every=0 only; found 1"),
        ({**loss_settings("focal"), "label_smoothing_factor": 0.1}, "label_smoothing_factor=0.0 only; found 0.1"),
        (loss_settings("focal", gamma=-1), "gamma is -1"),
        (loss_settings("cross_entropy", gamma=1), "has no options"),
        ({"meta_network": "loss"}, "perturbation, weight"),
        ({"meta_network": "weight", "evidence": ["background"]}, "goes without evidence"),
        ({"meta_network": "weight", "perturbed_logits": "own"}, "goes without perturbed_logits='own'"),
    ],
)
def test_bad_settings_are_refused(make_trainer, settings, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(**settings)


def test_groups_must_be_there(make_trainer):
    with pytest.raises(ValueError, match="needs the group of every training image"):
        make_trainer(train_dataset=Squares(60, columns=()), **loss_settings("group_dro"))


@pytest.mark.parametrize("name", ["irm", "coral", "domain_mix"])
def test_any_number_of_environments_is_trained_on(make_trainer, name):
    """Five of them, of all classes, some in no batch: as data sets of domains have them."""

    class Domains(Squares):
        def __init__(self, length):
            super().__init__(length)
            self.group = [index // 3 % 5 for index in range(length)]

    trainer = make_trainer(train_dataset=Domains(60), max_steps=3, **METHODS[name])
    before = parameters(trainer.model)
    trainer.train()
    assert trainer.learner.training_loss.environments.tolist() == [0, 1, 2, 3, 4]
    assert torch.isfinite(parameters(trainer.model)).all()
    assert (parameters(trainer.model) != before).float().mean() > 0.5


def test_losses_that_need_no_groups_look_at_none(make_trainer):
    class NoGroups(Squares):
        """Whose items would all be made to look for a group."""

        def __init__(self, *args):
            super().__init__(*args, columns=())
            del self.group

        def __getitem__(self, index):
            raise AssertionError("an image was made")

    trainer = make_trainer(train_dataset=NoGroups(60), **loss_settings("logit_adjustment"))
    assert trainer.learner.training_loss is not None
