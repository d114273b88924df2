"""The probe learns what the background says, and nothing where it says nothing."""

from types import SimpleNamespace

import torch

from clp_hf.causal import CausalAugmentation, Masks, boxes_to_masks
from clp_hf.perturbation import BackgroundProbe, Evidences, OnlineProbe
from clp_hf.perturbation.evidence import BackgroundEvidence, BiasEvidence


def batches(correlation, steps=60, seed=0):
    """Features with a common part, a place, and noise; the label agrees with the place as often as `correlation`."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        labels = torch.randint(2, (32,), generator=generator)
        place = torch.where(torch.rand(32, generator=generator) < correlation, labels, 1 - labels)
        features = 3 + torch.randn(32, 16, generator=generator)
        features[:, 0] += 6 * place - 3
        yield features, labels, place


def evidence_of_own_place(probe, correlation):
    for features, labels, _ in batches(correlation):
        probe(features, labels)
    features, labels, place = next(batches(correlation, seed=1))
    return probe(features, labels, update=False)[torch.arange(32), place].mean().item()


def test_a_background_that_predicts_the_label_gets_logits_of_its_strength():
    assert evidence_of_own_place(BackgroundProbe(16, 2), 0.95) > 1.0
    assert abs(evidence_of_own_place(BackgroundProbe(16, 2), 0.5)) < 0.3


def test_starts_at_zero_and_is_centred_over_classes():
    probe = BackgroundProbe(16, 3)
    features, labels, _ = next(batches(0.9))
    assert probe(features, labels).abs().max() == 0
    torch.testing.assert_close(probe(features, labels).sum(-1), torch.zeros(32), atol=1e-5, rtol=0)


def test_without_update_nothing_moves():
    probe = BackgroundProbe(16, 2)
    features, labels, _ = next(batches(0.9))
    probe(features, labels, update=False)
    assert all(buffer.abs().sum() == 0 for buffer in probe.buffers())


def test_it_learns_from_the_labels_of_the_named_images_alone():
    probe, other = BackgroundProbe(16, 2), BackgroundProbe(16, 2)
    for features, labels, _ in batches(0.95):
        named = torch.arange(32) % 2 == 0
        predicted = probe(features, labels, learn_from=named)
        assert torch.equal(predicted, other(features, torch.where(named, labels, 1 - labels), learn_from=named))
    features, labels, place = next(batches(0.95, seed=1))
    assert probe(features, labels, update=False)[torch.arange(32), place].mean() > 1.0
    before = probe.weight.clone()
    probe(features, labels, learn_from=torch.zeros(32, dtype=torch.bool))
    assert torch.equal(probe.weight, before)


def test_backgrounds_of_which_half_are_swapped_say_nothing():
    """The features are the brightness of the background, which tells the class until it is another one's."""
    classifier = SimpleNamespace(features=lambda images: images[:, :2].mean((2, 3)))
    labels = torch.arange(16) % 2
    mask = Masks(boxes_to_masks([[4, 4, 4, 4]] * 16, 12, 12))
    pixels = (labels - 0.5)[:, None, None, None].expand(16, 3, 12, 12).clone()
    augmentation = CausalAugmentation(["tile"], [], [0.5] * 3, [0.5] * 3)

    def evidence_of(swapped):
        evidence = BackgroundEvidence(BackgroundProbe(2, 2), augmentation, torch.Generator().manual_seed(0))
        changed = torch.where(swapped[:, None, None, None], -pixels, pixels)
        for _ in range(40):
            predicted = evidence({"pixel_values": changed, "labels": labels, "mask": mask}, None, classifier)
        return predicted

    assert (evidence_of(torch.zeros(16, dtype=torch.bool)).argmax(-1) == labels).all()
    assert evidence_of(torch.arange(16) % 4 < 2).abs().max() < 0.2  # half of every class


def test_generalised_cross_entropy_learns_by_its_gradient():
    probe, q = OnlineProbe(16, 3, q=0.7).double(), 0.7
    features, labels, _ = next(batches(0.9))
    probe(features.double(), labels)
    inputs = 5 * torch.nn.functional.normalize(features.double() - probe.mean.lerp(features.double().mean(0), 0.5))
    weight, bias = (part.clone().requires_grad_() for part in (probe.weight, probe.bias))
    own = (inputs @ weight.T + bias).softmax(-1)[torch.arange(32), labels]
    gradient = torch.autograd.grad(((1 - own**q) / q).mean(), weight)[0]
    before = probe.weight.clone()
    probe(features.double(), labels)
    torch.testing.assert_close(probe.weight, before - probe.learning_rate * gradient)


def test_the_bias_is_the_shortcut_whatever_the_label():
    evidence = BiasEvidence(OnlineProbe(16, 2, q=0.7))
    for features, labels, place in batches(0.95, steps=200):  # noqa: B007
        u_z = evidence({"labels": labels}, features.requires_grad_(), None)
        assert not u_z.requires_grad
    assert (u_z.argmax(-1) == place).float().mean() > 0.95


def test_several_are_stacked_in_one_order_and_tell_how_often_they_agree():
    evidence = Evidences([BiasEvidence(OnlineProbe(16, 2, q=0.7))])
    features, labels, _ = next(batches(0.95))
    u_z = evidence({"labels": labels}, features, None)
    assert u_z.shape == (32, 1, 2)
    assert evidence.agreement(u_z, labels)["bias"] == 0  # it knows nothing yet
    agrees = torch.nn.functional.one_hot(labels, 2)[:, None].float()
    agrees[:8] = -agrees[:8]
    assert evidence.agreement(agrees, labels)["bias"] == 0.75
    assert Evidences()({"labels": labels}, features, None) is None
    assert Evidences().agreement(None, labels) == {}
