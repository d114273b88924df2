"""Parameters that FSDP2 has sharded: over one process here, over two in tests/test_distributed.py."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers.modeling_outputs import ImageClassifierOutput

from clp_hf.bilevel import Classifier, is_sharded, step_sizes, whole
from clp_hf.bilevel.sharded import whole_copy
from clp_hf.modeling import ComposedHead, forward_with_features


@pytest.fixture
def group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))  # where there is a GPU, `fully_shard` would go there by itself
    dist.destroy_process_group()


class Network(nn.Module):
    def __init__(self, head):
        super().__init__()
        self.body, self.head = nn.Linear(12, head.in_features), head

    def forward(self, pixel_values):
        return ImageClassifierOutput(logits=self.head(self.body(pixel_values.flatten(1))))


def heads():
    return {
        "linear": nn.Linear(4, 3),
        "without bias": nn.Linear(4, 3, bias=False),
        "convolution": ComposedHead([nn.Conv2d(4, 3, 1)]),
        "two layers": ComposedHead([nn.Linear(2, 3), nn.Linear(2, 3)]),
    }


@pytest.mark.parametrize("alone", [False, True], ids=["with the rest", "by itself"])
@pytest.mark.parametrize("name", heads())
def test_the_head_apart_is_whole_as_it_was_at_the_beginning_of_the_step(group, name, alone):
    head = heads()[name]
    features, expected = torch.randn(5, 4), whole_copy(head)
    model = Network(head)
    for layer in head.modules() if alone else ():
        if not isinstance(layer, (nn.ModuleList, ComposedHead)):
            fully_shard(layer, mesh=group)
    classifier = Classifier(fully_shard(model, mesh=group), head, forward_with_features)
    classifier.begin_step(model)
    assert is_sharded(model)
    assert not is_sharded(classifier.apart)
    assert classifier.apart.state_dict().keys() == head.state_dict().keys() == classifier.head_weights.keys()
    assert torch.equal(classifier.apart.weight, expected.weight)
    assert torch.equal(classifier.classify(features), expected(features))
    for weight in classifier.head_weights.values():
        weight.data.zero_()
    assert torch.equal(classifier.classify(features), expected(features))


def test_without_sharding_the_head_is_itself():
    head = nn.Linear(4, 3)
    classifier = Classifier(Network(head), head, forward_with_features)
    classifier.begin_step(classifier.module)
    assert classifier.apart is head
    assert classifier.head_weights["weight"] is head.weight is whole(head.weight)


def test_a_pass_aside_sees_the_last_step_of_the_optimizer(group):
    """And leaves the parameters that the next one moves."""
    head = nn.Linear(4, 3)
    model = fully_shard(Network(head), mesh=group)
    classifier = Classifier(model, head, forward_with_features)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pixels = torch.randn(2, 3, 2, 2)
    for _ in range(2):
        classifier.begin_step(model)
        model(pixels).logits.sum().backward()
        before = classifier.logits(pixels)
        assert {id(weight) for weight in model.parameters()} == {id(w) for w in optimizer.param_groups[0]["params"]}
        optimizer.step()
        assert not torch.equal(classifier.logits(pixels), before)


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
def test_steps_are_those_of_whole_parameters(group, optimizer):
    torch.manual_seed(0)
    layer, other = nn.Linear(4, 3), nn.Linear(4, 3)
    other.load_state_dict(layer.state_dict())
    fully_shard(layer, mesh=group)
    sizes = []
    for module in (layer, other):
        descent = optimizer(module.parameters(), lr=0.1, **({"momentum": 0.9} if optimizer is torch.optim.SGD else {}))
        module(torch.ones(2, 4)).square().sum().backward()
        descent.step()
        weights = dict(module.named_parameters())
        gradients = {name: whole(weight.grad) for name, weight in weights.items()}
        sizes.append(step_sizes(descent, weights, gradients, max_grad_norm=0.5))
    for name, size in sizes[0].items():
        torch.testing.assert_close(size, sizes[1][name])
