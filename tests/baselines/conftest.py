"""Features with one causal and one easier spurious coordinate, as a frozen backbone would give them."""

from functools import cache

import pytest
import torch

from clp_hf.hsfm.features import FeatureSet


@pytest.fixture(scope="session")
def spurious():
    """`(train, validation, test, head)`: train 95 % spurious, the others balanced, the head fitted by ERM."""

    def draw(n, correlation, seed, num_classes=2):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(n) % num_classes
        other = (labels + 1 + torch.randint(0, num_classes - 1, (n,), generator=generator)) % num_classes
        attribute = torch.where(torch.rand(n, generator=generator) < correlation, labels, other)
        noise = torch.randn(n, 2 * num_classes + 2, generator=generator)
        features = 3 + 2 * noise  # neither centred nor of unit variance
        features[:, :num_classes] += 4 * torch.eye(num_classes)[labels]
        features[:, num_classes : 2 * num_classes] += 9 * torch.eye(num_classes)[attribute]
        return features, labels, num_classes * labels + attribute

    def make(num_classes=2):
        parts = [
            draw(n, correlation, seed, num_classes)
            for seed, (n, correlation) in enumerate([(800, 0.95), (400, 1 / num_classes), (1200, 1 / num_classes)])
        ]
        features, labels, _ = parts[0]
        weight = torch.zeros(num_classes, features.shape[1], requires_grad=True)
        bias = torch.zeros(num_classes, requires_grad=True)
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=100)

        def loss():
            optimizer.zero_grad()
            value = torch.nn.functional.cross_entropy(features @ weight.T + bias, labels) + 1e-3 * weight.square().sum()
            value.backward()
            return value

        optimizer.step(loss)
        weight, bias = weight.detach(), bias.detach()
        sets = [FeatureSet(features, features @ weight.T + bias, labels, groups) for features, labels, groups in parts]
        return *sets, (weight, bias)

    return cache(make)
