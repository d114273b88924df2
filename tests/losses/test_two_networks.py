"""Losses of two networks by hand, and both networks trained, resumed and saved by the trainer."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from conftest import Squares, resnet, vit
from transformers import AutoModelForImageClassification

from clp_hf.losses import CoTeaching, JoCoR, LearningFromFailure, build_loss
from clp_hf.losses.two_networks.base import SmallLossSelection
from clp_hf.losses.two_networks.objective import with_new_head
from clp_hf.utils.precision import NonFiniteError

NAMES = ("co_teaching", "jocor", "lff")
SGD = {"optim": "sgd", "lr_scheduler_type": "constant", "max_grad_norm": 0.0}
CHECKPOINTS = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}


def settings_of(name, **options):
    return {"meta_every": 0, "training_loss": name, "training_loss_options": options or None}


def parameters(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def logits_of(*probabilities):
    """Of two classes, by the probability of the first."""
    return torch.tensor([[math.log(p / (1 - p)), 0.0] for p in probabilities], dtype=torch.float64, requires_grad=True)


LABELS = torch.zeros(4, dtype=torch.long)


# ---- the formulas ----------------------------------------------------------------------------------------------------


def test_each_network_learns_what_the_other_one_finds_easy():
    own, peer = logits_of(0.9, 0.8, 0.3, 0.2), logits_of(0.1, 0.7, 0.4, 0.9)
    loss = CoTeaching(forget_rate=0.5, warm_up=0.0)
    losses = loss(own, peer, LABELS)
    assert losses.weights.tolist() == [0, 2, 0, 2]  # easy for the peer: 0.7 and 0.9
    assert losses.own.item() == pytest.approx(-(math.log(0.8) + math.log(0.2)) / 2)
    assert losses.peer.item() == pytest.approx(-(math.log(0.1) + math.log(0.7)) / 2)  # easy for the first one
    (losses.own + losses.peer).backward()
    assert own.grad.abs().sum(1).gt(0).tolist() == [False, True, False, True]
    assert peer.grad.abs().sum(1).gt(0).tolist() == [True, True, False, False]


@pytest.mark.parametrize(("progress", "kept"), [(0.0, 1.0), (0.025, 0.8), (0.05, 0.6), (0.9, 0.6)])
def test_ever_more_samples_are_forgotten(progress, kept):
    loss = SmallLossSelection(noise_rate=0.4)
    loss.progress = progress
    assert loss.kept_share == pytest.approx(kept)
    losses = torch.arange(20.0).flip(0)
    weights = loss.select(losses)
    assert weights.count_nonzero() == round(20 * kept)
    assert weights.mean() == pytest.approx(1)
    assert sorted(losses[weights > 0].tolist()) == list(range(round(20 * kept)))


def test_one_sample_at_least_is_kept():
    assert SmallLossSelection(forget_rate=0.9, warm_up=0.0).select(torch.tensor([2.0, 1.0])).tolist() == [0, 2]


def test_jocor_selects_by_errors_and_by_disagreement():
    p, q = torch.tensor([0.9, 0.9, 0.6, 0.2]), torch.tensor([0.9, 0.2, 0.6, 0.2])
    own, peer = logits_of(*p.tolist()), logits_of(*q.tolist())
    losses = JoCoR(forget_rate=0.5, warm_up=0.0, agreement=0.9)(own, peer, LABELS)
    assert losses.weights.tolist() == [2, 0, 2, 0]  # the second is right in one network, but they do not agree
    total = 0.1 * (F.cross_entropy(own, LABELS, reduction="none") + F.cross_entropy(peer, LABELS, reduction="none"))
    assert (losses.own + losses.peer).item() == pytest.approx((total[0] + total[2]).item() / 2)
    apart = JoCoR(forget_rate=0.0, agreement=1.0)(own, peer, LABELS)
    kl = sum(
        F.kl_div(b.log_softmax(-1), a.log_softmax(-1), reduction="batchmean", log_target=True)
        for a, b in ((own, peer), (peer, own))
    )
    assert (apart.own + apart.peer).item() == pytest.approx(kl.item())


def test_what_the_biased_network_fails_at_counts_more():
    own, biased = logits_of(0.5, 0.5, 0.9, 0.9), logits_of(0.9, 0.1, 0.9, 0.1)
    losses = LearningFromFailure(q=0.7)(own, biased, LABELS)
    a, b = (-math.log(p) for p in (0.9, 0.1))
    half = math.log(2)
    assert losses.weights.tolist() == pytest.approx([a / (a + half), b / (b + half), 0.5, b / (a + b)])
    losses.own.backward()
    assert biased.grad is None
    assert losses.peer.item() == pytest.approx((1 - 0.9**0.7 + 1 - 0.1**0.7) / 0.7 / 2)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("co_teaching", {"forget_rate": 1.0}, "forget_rate is 1.0; expected a share of the images"),
        ("co_teaching", {"forget_rate": -0.1}, "forget_rate is -0.1"),
        ("jocor", {"warm_up": 2.0}, "warm_up is 2.0; expected a share of the training"),
        ("jocor", {"agreement": 1.5}, "agreement is 1.5"),
        ("lff", {"q": 0.0}, "q is 0.0"),
        ("co_teaching", {"noise_rate": 0.4}, "co_teaching has no option noise_rate; it has forget_rate, warm_up"),
    ],
)
def test_bad_options_are_refused(make_trainer, name, options, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(**settings_of(name, **options))


def test_as_many_are_forgotten_as_labels_are_known_to_be_wrong(make_trainer):
    labels = torch.tensor([0, 1, 2, 0])
    assert build_loss("co_teaching", labels, 3, noise_rate=0.4).forget_rate == 0.4
    assert build_loss("co_teaching", labels, 3, noise_rate=0.4, options={"forget_rate": 0.1}).forget_rate == 0.1
    assert build_loss("jocor", labels, 3).forget_rate == 0.2
    trainer = make_trainer(train_dataset=WithNoise(60), max_steps=1, **settings_of("co_teaching"))
    assert trainer.learner.training_loss.forget_rate == 0.25


class WithNoise(Squares):
    """Every fourth label is known to be wrong."""

    def __init__(self, length):
        super().__init__(length)
        self.noisy = [index % 4 == 0 for index in range(length)]

    def __getitem__(self, index):
        return super().__getitem__(index) | {"noisy": self.noisy[index]}


# ---- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_both_networks_are_trained_and_differ_and_one_is_kept(make_trainer, name):
    trainer = make_trainer(resnet(), max_steps=3, train_dataset=WithNoise(60), **settings_of(name))
    learner = trainer.learner
    start = [parameters(network) for network in (trainer.model, learner.peer)]
    backbone, other = (
        {key: value for key, value in network.state_dict().items() if not key.startswith("classifier")}
        for network in (trainer.model, learner.peer)
    )
    assert all(torch.equal(value, other[key]) for key, value in backbone.items())
    assert not torch.equal(*start)
    trainer.train()
    end = [parameters(network) for network in (trainer.model, learner.peer)]
    for before, after in zip(start, end, strict=True):
        assert (before != after).float().mean() > 0.9
    assert (end[0] != end[1]).float().mean() > 0.9
    statistics = [buffer for key, buffer in learner.peer.named_buffers() if key.endswith("num_batches_tracked")]
    assert all(buffer == 3 for buffer in statistics)
    trainer.save_model()
    saved = AutoModelForImageClassification.from_pretrained(trainer.args.output_dir)
    assert torch.equal(parameters(saved), end[0])
    log = [entry for entry in trainer.state.log_history if "weight_noisy" in entry]
    assert len(log) == 3
    assert all(math.isfinite(entry["weight_clean"]) for entry in log)


@pytest.mark.parametrize("name", NAMES)
def test_resumed_equals_uninterrupted(make_trainer, tmp_path, name):
    settings = {**CHECKPOINTS, **settings_of(name)}
    whole = make_trainer(vit(hidden_dropout_prob=0.1), **settings)
    whole.train()
    resumed = make_trainer(vit(hidden_dropout_prob=0.1), **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert torch.equal(parameters(whole.model), parameters(resumed.model))
    assert torch.equal(parameters(whole.learner.peer), parameters(resumed.learner.peer))
    moments = [trainer.optimizer.state_dict()["state"] for trainer in (whole, resumed)]
    assert len(moments[0]) == 2 * len(list(whole.model.parameters()))
    assert all(torch.equal(moments[0][key]["exp_avg"], moments[1][key]["exp_avg"]) for key in moments[0])
    with pytest.raises(ValueError, match=r"training_loss=|training_loss was"):
        make_trainer(**CHECKPOINTS, **settings_of("focal")).train(
            resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2")
        )


def test_a_step_is_one_of_each_network_by_the_formula(make_trainer):
    """SGD by hand, the gradient of each clipped by its own norm."""
    settings = SGD | {"max_grad_norm": 0.05}
    trainer = make_trainer(vit(), max_steps=1, **settings_of("jocor", forget_rate=0.5, warm_up=0.0), **settings)
    networks, batches = [copy.deepcopy(network).train() for network in (trainer.model, trainer.learner.peer)], []
    original = trainer._prepare_inputs
    trainer._prepare_inputs = lambda inputs: batches.append(original(inputs)) or batches[-1]
    trainer.train()
    logits = [network(pixel_values=batches[0]["pixel_values"]).logits for network in networks]
    losses = JoCoR(forget_rate=0.5, warm_up=0.0)(*logits, batches[0]["labels"])
    (losses.own + losses.peer).backward()
    for network, trained in zip(networks, (trainer.model, trainer.learner.peer), strict=True):
        assert torch.nn.utils.clip_grad_norm_(network.parameters(), 0.05) > 0.05
        for expected, found in zip(network.parameters(), trained.parameters(), strict=True):
            torch.testing.assert_close(found.data, expected.data - trainer.args.learning_rate * expected.grad)


def test_accumulated_equals_whole(make_trainer):
    """Where no micro-batch is selected from, as in LfF."""

    def train(**settings):
        trainer = make_trainer(train_dataset=Squares(50), max_steps=2, **settings_of("lff"), **SGD, **settings)
        trainer.train()
        return torch.cat([parameters(trainer.model), parameters(trainer.learner.peer)])

    parts = train(per_device_train_batch_size=2, gradient_accumulation_steps=4)
    torch.testing.assert_close(train(per_device_train_batch_size=8), parts, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("network", ["model", "peer"])
def test_a_step_that_is_not_finite_in_one_network_is_left_out_in_both(make_trainer, network):
    trainer = make_trainer(resnet(), max_steps=3, on_nonfinite="skip", **settings_of("co_teaching"))
    spoiled = trainer.model if network == "model" else trainer.learner.peer
    passes, states = [], []

    def spoil(module, args, output):
        passes.append(1)
        states.append([copy.deepcopy(part.state_dict()) for part in (trainer.model, trainer.learner.peer)])
        if len(passes) == 2 and module.training:
            output.logits = output.logits * torch.inf
        return output

    handle = spoiled.register_forward_hook(spoil)
    trainer.train()
    handle.remove()
    own, peer = (
        {key: value for key, value in part.items() if "running" not in key and "tracked" not in key}
        for part in states[1]
    )
    assert all(torch.equal(value, states[2][0][key]) for key, value in own.items())
    assert all(torch.equal(value, states[2][1][key]) for key, value in peer.items())
    assert [entry["steps_skipped"] for entry in trainer.state.log_history if "steps_skipped" in entry] == [1]
    assert not torch.equal(parameters(trainer.learner.peer), torch.cat([v.flatten() for v in peer.values()]))


def test_a_gradient_of_the_peer_alone_stops_training_too(make_trainer):
    trainer = make_trainer(max_steps=2, **settings_of("lff"))
    next(trainer.learner.peer.parameters()).register_hook(lambda gradient: gradient * torch.nan)
    with pytest.raises(NonFiniteError):
        trainer.train()


def test_the_second_head_is_a_function_of_the_seed_and_draws_nothing_of_the_run(make_trainer):
    model = vit()
    state = torch.get_rng_state()
    one, same, other = (with_new_head(model, model.classifier, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one.classifier.weight, same.classifier.weight)
    assert not torch.equal(one.classifier.weight, other.classifier.weight)
    assert one.classifier.weight is not model.classifier.weight


def test_a_second_training_goes_on_with_the_same_peer(make_trainer):
    trainer = make_trainer(max_steps=1, **settings_of("lff"))
    trainer.train()
    trainer.train()
    weights = [id(weight) for group in trainer.optimizer.param_groups for weight in group["params"]]
    assert len(weights) == len(set(weights)) == 2 * len(list(trainer.model.parameters()))


def test_half_precision(make_trainer):
    trainer = make_trainer(bf16=True, max_steps=2, **settings_of("co_teaching"))
    seen = []
    trainer.learner.training_loss.register_forward_pre_hook(
        lambda module, args: seen.append((args[0].dtype, args[1].dtype))
    )
    trainer.learner.peer.vit.embeddings.register_forward_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    trainer.train()
    assert seen == [True, (torch.float32, torch.float32)] * 2
