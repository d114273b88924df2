"""The training losses against hand-computed values, their formulas, and the losses of other libraries."""

import math

import pytest
import torch
import torch.nn.functional as F
from timm.loss import AsymmetricLossSingleLabel
from torchvision.ops import sigmoid_focal_loss

from clp_hf.losses import (
    LDAM,
    LISA,
    TRAINING_LOSSES,
    BalancedSoftmax,
    ClassBalanced,
    Cosine,
    Focal,
    GeneralisedCrossEntropy,
    GroupDRO,
    LogitAdjustment,
    NCEandMAE,
    NCEandRCE,
    Outputs,
    build_loss,
    effective_number_weights,
    is_pair,
)

COUNTS = torch.tensor([100, 10, 5])
LABELS = torch.tensor([0, 1, 2, 0])
GROUPS = torch.tensor([0, 3, 4, 1])


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 3, generator=generator, dtype=torch.float64).requires_grad_()


def own_probability(logits):
    return logits.softmax(-1).gather(1, LABELS[:, None])[:, 0]


def check_value_and_gradient(loss, formula, logits):
    torch.testing.assert_close(loss, formula, rtol=1e-6, atol=1e-7)
    ours, expected = (torch.autograd.grad(value, logits, retain_graph=True)[0] for value in (loss, formula))
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-7)


# ---- against formulas ------------------------------------------------------------------------------------------------


def test_losses_are_their_papers_formulas(logits):
    p = own_probability(logits)
    check_value_and_gradient(Focal(2.0)(logits, LABELS), (-((1 - p) ** 2) * p.log()).mean(), logits)
    check_value_and_gradient(GeneralisedCrossEntropy(0.7)(logits, LABELS), ((1 - p**0.7) / 0.7).mean(), logits)
    check_value_and_gradient(Cosine(3.0)(logits, LABELS), -(3 * logits).log_softmax(1)[range(4), LABELS].mean(), logits)
    active = p.log() / logits.log_softmax(-1).sum(-1)
    check_value_and_gradient(NCEandMAE(2.0, 3.0)(logits, LABELS), (2 * active + 3 * (1 - p)).mean(), logits)
    others = logits.softmax(-1).sum(-1) - p
    reverse = -math.log(1e-4) * others  # −Σ p_k log(one-hot), log 0 clipped
    check_value_and_gradient(NCEandRCE(10.0, 0.1)(logits, LABELS), (10 * active + 0.1 * reverse).mean(), logits)
    exponentials = COUNTS * logits.exp()
    balanced = -(exponentials.gather(1, LABELS[:, None])[:, 0] / exponentials.sum(1)).log().mean()
    check_value_and_gradient(BalancedSoftmax(COUNTS)(logits, LABELS), balanced, logits)
    adjusted = logits + 0.5 * torch.tensor([100 / 115, 10 / 115, 5 / 115], dtype=torch.float64).log()
    check_value_and_gradient(LogitAdjustment(COUNTS, 0.5)(logits, LABELS), F.cross_entropy(adjusted, LABELS), logits)


def test_limits_are_cross_entropy(logits):
    plain = F.cross_entropy(logits, LABELS)
    for loss in (
        Focal(0.0),
        ClassBalanced(COUNTS, beta=0.0),
        LogitAdjustment(COUNTS, 0.0),
        GeneralisedCrossEntropy(1e-7),
        BalancedSoftmax(torch.tensor([7, 7, 7])),
        GroupDRO(torch.ones(1), step_size=0.0),
    ):
        torch.testing.assert_close(loss(logits, LABELS, torch.zeros_like(LABELS)), plain, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(
        BalancedSoftmax(COUNTS)(logits, LABELS), LogitAdjustment(COUNTS)(logits, LABELS), rtol=1e-6, atol=1e-7
    )


def test_focal_is_that_of_timm_and_torchvision(logits):
    for gamma in (0.5, 1.0, 2.0):
        timm_focal = AsymmetricLossSingleLabel(gamma_pos=gamma, gamma_neg=gamma, eps=0.0)
        torch.testing.assert_close(Focal(gamma)(logits, LABELS), timm_focal(logits, LABELS))
        margin, labels = logits[:, 0], LABELS.clamp(max=1)
        two = torch.stack([torch.zeros_like(margin), margin], 1)
        sigmoid = sigmoid_focal_loss(margin, labels.double(), alpha=-1, gamma=gamma, reduction="mean")
        torch.testing.assert_close(Focal(gamma)(two, labels), sigmoid)


def test_losses_stay_finite_at_extreme_logits():
    logits = torch.tensor([[200.0, 0, 0], [-200, 0, 0]], requires_grad=True)
    labels = torch.tensor([0, 0])
    for loss in (Focal(0.5), GeneralisedCrossEntropy(), NCEandMAE(), NCEandRCE(), ClassBalanced(COUNTS, gamma=0.5)):
        value = loss(logits, labels)
        assert torch.isfinite(value)
        assert torch.isfinite(torch.autograd.grad(value, logits)[0]).all()


# ---- class frequencies -----------------------------------------------------------------------------------------------


def test_effective_number_weights_by_hand():
    # β = 0.5: effective numbers (1 − 0.5^n) / 0.5 of 1, 2 and 3 images are 1, 1.5 and 1.75.
    raw = torch.tensor([1.0, 1 / 1.5, 1 / 1.75])
    mean = (1 * raw[0] + 2 * raw[1] + 3 * raw[2]) / 6
    torch.testing.assert_close(effective_number_weights(torch.tensor([1, 2, 3]), 0.5), raw / mean)


def test_class_balanced_is_the_weighted_mean_over_the_training_set():
    """PyTorch's weighted cross-entropy divides by the weights of the batch: the same, seen over all images."""
    labels = torch.arange(3).repeat_interleave(COUNTS)
    logits = torch.randn(len(labels), 3, generator=torch.Generator().manual_seed(0))
    loss = ClassBalanced(COUNTS, beta=0.99)
    expected = F.cross_entropy(logits, labels, weight=loss.weights)
    torch.testing.assert_close(loss(logits, labels), expected)
    odd, even = ([part[start:114:2] for part in (logits, labels)] for start in (1, 0))
    accumulated = (loss(*odd) + loss(*even)) / 2
    torch.testing.assert_close(accumulated, loss(logits[:114], labels[:114]))


def test_ldam_by_hand():
    loss = LDAM(torch.tensor([16, 1]), max_margin=0.5, scale=2.0, beta=0.0)
    assert loss.margins.tolist() == [0.25, 0.5]  # ∝ n^(−1/4)
    cosines = torch.tensor([[0.8, -0.2], [0.1, 0.3]])
    logits = 2 * torch.tensor([[0.8 - 0.25, -0.2], [0.1, 0.3 - 0.5]])
    labels = torch.tensor([0, 1])
    torch.testing.assert_close(loss(cosines, labels), F.cross_entropy(logits, labels))


def test_deferred_weights_switch_at_their_share_of_the_training():
    loss, never = LDAM(COUNTS, reweight_from=0.8), LDAM(COUNTS, reweight_from=1.0)
    cosines = torch.tensor([[0.8, -0.2, 0.1], [0.1, 0.3, 0.0], [0.0, 0.2, 0.3]])
    labels = torch.tensor([0, 1, 2])
    weighted = (loss.weights * torch.stack([never(cosines[[i]], labels[[i]]) for i in range(3)])).mean()
    for epoch, expected in ((159, never(cosines, labels)), (160, weighted), (199, weighted)):
        loss.progress = never.progress = epoch / 200
        torch.testing.assert_close(loss(cosines, labels), expected)
        assert never(cosines, labels) != weighted


# ---- groups ----------------------------------------------------------------------------------------------------------


def test_group_dro_by_hand_over_two_steps():
    loss = GroupDRO(torch.tensor([4, 4, 0]), step_size=0.5)
    assert loss.weights.tolist() == [0.5, 0.5, 0.0]  # a group that training never shows has no share
    logits = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 2.0]], requires_grad=True)
    labels, groups = torch.tensor([0, 1, 0]), torch.tensor([0, 0, 1])
    first = (math.log(1 + math.exp(-1)) + math.log(2)) / 2
    second = math.log(1 + math.exp(2))

    weights = torch.tensor([0.5 * math.exp(0.5 * first), 0.5 * math.exp(0.5 * second), 0.0])
    weights /= weights.sum()
    value = loss(logits, labels, groups)
    torch.testing.assert_close(loss.weights, weights)
    torch.testing.assert_close(value, weights[0] * first + weights[1] * second)
    # the weights are constants to the gradient: those of the samples in their group means
    residuals = logits.softmax(-1) - F.one_hot(labels)
    expected = residuals * torch.tensor([weights[0] / 2, weights[0] / 2, weights[1]])[:, None]
    torch.testing.assert_close(torch.autograd.grad(value, logits)[0], expected)

    # the second batch lacks group 1: its loss there is 0, its weight only shrinks by the normalisation
    weights[0] *= math.exp(0.5 * first)
    weights /= weights.sum()
    value = loss(logits[:2], labels[:2], groups[:2])
    torch.testing.assert_close(loss.weights, weights)
    torch.testing.assert_close(value, weights[0] * first)
    loss.eval()
    loss(logits, labels, groups)
    torch.testing.assert_close(loss.weights, weights)


def test_group_adjustment_favours_small_groups():
    loss = GroupDRO(torch.tensor([100, 4]), step_size=1.0, adjustment=2.0)
    loss(torch.zeros(2, 2), torch.tensor([0, 1]), torch.tensor([0, 1]))
    torch.testing.assert_close(loss.weights[1] / loss.weights[0], torch.tensor(math.exp(2 / 2 - 2 / 10)))


def test_group_dro_of_two_processes_is_that_of_the_joint_batch(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 2, generator=generator, requires_grad=True)
    labels, groups = torch.tensor([0, 1, 0, 1, 1, 0]), torch.tensor([0, 0, 0, 1, 0, 1])
    joint = GroupDRO(torch.tensor([4, 2]), step_size=0.5)
    value = joint(logits, labels, groups)

    halves = [slice(0, 3), slice(3, 6)]  # the first process has no sample of group 1
    sent = []
    monkeypatch.setattr("clp_hf.losses.group_dro.all_reduce_mean", lambda tensors: sent.append(tensors) or tensors)
    for half in halves:
        GroupDRO(torch.tensor([4, 2]))(logits[half], labels[half], groups[half])
    means = [(a + b) / 2 for a, b in zip(*sent, strict=True)]
    monkeypatch.setattr("clp_hf.losses.group_dro.all_reduce_mean", lambda tensors: means)
    values = []
    for half in halves:
        loss = GroupDRO(torch.tensor([4, 2]), step_size=0.5)
        values.append(loss(logits[half], labels[half], groups[half]))
        torch.testing.assert_close(loss.weights, joint.weights)
    check_value_and_gradient(sum(values) / 2, value, logits)


CELLS = torch.tensor([[5, 3, 0, 0], [0, 0, 2, 6]])  # two classes, two attributes


def test_lisa_mixes_within_a_class_or_within_an_attribute():
    labels, groups = torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([0, 1, 0, 2, 3, 3])
    loss = LISA(CELLS)
    torch.manual_seed(0)
    drawn = {intra: {tuple(loss.draw_partners(labels, groups, intra).tolist()) for _ in range(100)}
             for intra in (True, False)}  # fmt: skip
    possible = {intra: [{partners[i] for partners in drawn[intra]} for i in range(6)] for intra in drawn}
    assert possible[True] == [{1}, {0, 2}, {1}, {4, 5}, {3}, {3}]
    assert possible[False] == [{3}, {4, 5}, {3}, {0, 2}, {1}, {1}]
    alone = loss.draw_partners(labels[:1], groups[:1], intra_label=True)
    assert alone.tolist() == [0]


def test_lisa_mixes_images_and_labels_alike():
    labels, groups = torch.tensor([0, 1, 0, 1]), torch.tensor([0, 2, 1, 3])
    images = labels[:, None, None, None].float().expand(4, 3, 2, 2)  # an image shows its label
    torch.manual_seed(0)
    mixed, targets = LISA(CELLS, intra_label=0.0).mix(images, labels, groups)
    torch.testing.assert_close(mixed.mean((1, 2, 3)), targets[:, 1])
    assert ((targets > 0) & (targets < 1)).all()
    torch.testing.assert_close(targets.sum(1), torch.ones(4))
    mixed, targets = LISA(CELLS, intra_label=1.0).mix(images, labels, groups)
    torch.testing.assert_close(mixed, images)  # both of one class
    assert targets.argmax(1).equal(labels)

    logits = torch.tensor([[1.0, 0.0], [0.5, 2.0], [0.0, 1.0], [3.0, 1.0]])
    loss = LISA(CELLS, intra_label=0.0)
    torch.manual_seed(1)
    value = loss.of_batch(lambda pixels: Outputs(logits), {"pixel_values": images, "labels": labels, "group": groups})
    torch.manual_seed(1)
    _, targets = loss.mix(images, labels, groups)
    torch.testing.assert_close(value, -(targets * logits.log_softmax(-1)).sum(1).mean())


# ---- bad input -------------------------------------------------------------------------------------------------------

TRAIN_LABELS, TRAIN_GROUPS = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 2, 3])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("focall", {}, "no training loss 'focall'; choose one of class_balanced, .*lisa"),
        ("focal", {"gama": 1}, "focal has no option gama; it has gamma"),
        ("balanced_softmax", {"tau": 1}, "it has none"),
        ("focal", "gamma=1", "are 'gamma=1'; expected a dictionary"),
        ("focal", {"gamma": "high"}, "are numbers; found .*'high'"),
        ("focal", {"gamma": -1}, "gamma is -1; expected 0 or more"),
        ("class_balanced", {"beta": 1.0}, "beta is 1.0; expected 0 or more, and less than 1"),
        ("ldam", {"max_margin": -0.1}, "max_margin"),
        ("ldam", {"scale": 0}, "scale is 0; expected more than 0"),
        ("ldam_drw", {"reweight_from": 160}, "a share of the training"),
        ("logit_adjustment", {"tau": -1}, "tau is -1"),
        ("generalised_cross_entropy", {"q": 0}, "q is 0"),
        ("nce_rce", {"alpha": -1}, "alpha is -1"),
        ("nce_mae", {"beta": -1}, "beta is -1"),
        ("group_dro", {"step_size": -1}, "step_size is -1"),
        ("group_dro", {"adjustment": -1}, "adjustment is -1"),
        ("lisa", {"alpha": 0}, "alpha is 0"),
        ("lisa", {"intra_label": 2}, "a probability"),
        ("domain_mix", {"alpha": 0}, "alpha is 0"),
        ("irm", {"penalty_weight": -1}, "penalty_weight is -1"),
        ("v_rex", {"anneal_until": 500}, "a share of the training"),
        ("ib_irm", {"bottleneck_weight": -1}, "bottleneck_weight is -1"),
        ("coral", {"penalty_weight": -1}, "penalty_weight is -1"),
        ("isda", {"strength": -1}, "strength is -1"),
        ("isda", {"num_features": 5}, "isda has no option num_features; it has strength"),
        ("risda", {"head_share": 20}, "head_share is 20"),
        ("ala", {"scale": 0}, "scale is 0"),
        ("lpl", {"step_size": 0}, "step_size is 0"),
        ("l_dmi", {"warm_up": 2}, "warm_up is 2"),
    ],
)
def test_bad_options_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_loss(name, TRAIN_LABELS, 2, TRAIN_GROUPS, options, num_features=3)


def test_groups_are_integers_from_0():
    for groups in (TRAIN_GROUPS - 1, TRAIN_GROUPS.float()):
        with pytest.raises(ValueError, match="Groups are integers from 0"):
            build_loss("group_dro", TRAIN_LABELS, 2, groups)


@pytest.mark.parametrize("name", ["group_dro", "lisa", "irm", "coral", "domain_mix"])
def test_groups_must_be_known(name):
    with pytest.raises(ValueError, match=f"{name} needs the group of every training image"):
        build_loss(name, TRAIN_LABELS, 2)


def test_groups_that_are_not_class_and_attribute_are_refused_by_lisa():
    with pytest.raises(ValueError, match="group 1 has images of class 1"):
        build_loss("lisa", TRAIN_LABELS, 2, torch.tensor([0, 1, 1, 3]))


@pytest.mark.parametrize(
    "name",
    [
        "class_balanced", "class_balanced_focal", "ldam", "ldam_drw", "logit_adjustment", "balanced_softmax", "ala",
        "lpl", "risda",
    ],
)  # fmt: skip
def test_a_class_without_images_is_refused(name):
    with pytest.raises(ValueError, match=r"Classes \[2\] have no training image"):
        build_loss(name, TRAIN_LABELS, 3, num_features=3)


def test_every_loss_is_built_by_its_name_with_published_defaults():
    for name in TRAINING_LOSSES:
        loss = build_loss(name, TRAIN_LABELS, 2, TRAIN_GROUPS, num_features=3, corruption=torch.eye(2))
        batch = {"pixel_values": torch.zeros(4, 3, 2, 2), "labels": TRAIN_LABELS, "group": TRAIN_GROUPS}
        outputs = Outputs(torch.zeros(4, 2), torch.zeros(4, 3), torch.zeros(2, 3))
        if is_pair(name):
            assert torch.isfinite(torch.stack(loss(outputs.logits, outputs.logits, TRAIN_LABELS)[:2])).all()
            continue
        assert torch.isfinite(loss.of_batch(lambda pixel_values, outputs=outputs: outputs, batch))
    assert build_loss("ldam", TRAIN_LABELS, 2).reweight_from == 1.0
    assert build_loss("focal", TRAIN_LABELS, 2, options={"gamma": 1}).gamma == 1


# ---- MentorNet -------------------------------------------------------------------------------------------------------


def test_mentor_net_weighs_by_a_moving_percentile():
    loss = build_loss("mentor_net", torch.tensor([0, 1]), 2, options={"percentile": 0.5, "decay": 0.75})
    first, second = torch.tensor([0.9, 0.5, 0.1]), torch.tensor([0.6, 0.3, 0.2])
    labels = torch.zeros(3, dtype=torch.long)

    def of(probabilities):
        return loss(torch.stack([probabilities.log(), (1 - probabilities).log()], dim=1), labels).item()

    losses = -first.log()
    assert of(first) == pytest.approx((losses[0] + losses[1]).item() / 3)  # the third is 1.6 above their median
    threshold = 0.75 * losses[1] - 0.25 * second.log()[1]
    of(second)
    assert loss.threshold.item() == pytest.approx(threshold.item())
    above = loss.weights(threshold + torch.tensor([-1.0, 0.25, 0.5, 3.0]))
    assert above.tolist() == pytest.approx([1, 0.75, 0.5, 0])
    loss.eval()
    of(first)
    assert loss.threshold.item() == pytest.approx(threshold.item())


def test_self_paced_learning_is_mentor_net_without_softness():
    loss = build_loss("mentor_net", torch.tensor([0, 1]), 2, options={"softness": 0.0})
    loss.threshold.fill_(0.7)
    assert loss.weights(torch.tensor([0.1, 0.7, 0.8])).tolist() == [1, 1, 0]


@pytest.mark.parametrize("options", [{"percentile": 0.0}, {"percentile": 1.1}, {"softness": -1}, {"decay": 1.0}])
def test_mentor_net_refuses_bad_options(options):
    with pytest.raises(ValueError, match=rf"{next(iter(options))} is "):
        build_loss("mentor_net", torch.tensor([0, 1]), 2, options=options)
