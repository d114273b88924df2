"""The probe learns what the background says, and nothing where it says nothing."""

import torch

from clp_hf.perturbation import BackgroundProbe


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
