"""What steps Ω."""

from types import SimpleNamespace

import pytest
import torch

from clp_hf.perturbation import PerturbationNetwork, build_optimizer


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_sgd_is_plain_at_every_step(decay):
    network = PerturbationNetwork(3, characteristics=["loss", "margin"], hidden_size=4)
    settings = {"perturbation_optim": "sgd", "perturbation_learning_rate": 0.5, "perturbation_weight_decay": decay}
    optimizer = build_optimizer(network, SimpleNamespace(**settings))
    for step in range(3):
        before = [parameter.detach().clone() for parameter in network.parameters()]
        for parameter in network.parameters():
            parameter.grad = torch.full_like(parameter, 1.0 + step)
        optimizer.step()
        for parameter, old in zip(network.parameters(), before, strict=True):
            torch.testing.assert_close(parameter.detach(), old - 0.5 * (1.0 + step + decay * old))
