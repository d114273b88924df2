"""The script behind the compatibility table asks what it says it asks."""

import sys
from pathlib import Path

import pytest
import torch
from conftest import vit
from torch import nn

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import compatibility
from compatibility import FAMILIES, QUESTIONS, Family, examine, examine_apart, table


@pytest.mark.parametrize("name", ["mobilenetv3", "ViT"])
def test_a_family_that_works(name):
    record = examine(FAMILIES[name])
    assert all(record[question]["ok"] for question in QUESTIONS), record
    assert record["hypergradient"]["error"] < 1e-7
    has_no_second_derivative = name == "mobilenetv3"  # hard-sigmoid
    assert ("double_backward" in record["hypergradient"]) == has_no_second_derivative
    assert f"| {name} |" in table({name: record})


class Inexact(torch.autograd.Function):
    """The identity, with the derivative of another function in forward mode."""

    @staticmethod
    def forward(x):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, gradient):
        return gradient

    @staticmethod
    def jvp(ctx, tangent):
        return 1.01 * tangent


class Wrong(nn.Module):
    def forward(self, x):
        return Inexact.apply(x)


def build_wrong():
    model = vit()
    model.vit.layers[0].mlp.activation_fn = Wrong()
    model.classifier = nn.Sequential(model.classifier, nn.Tanh())
    return model


def test_what_does_not_work_is_told_with_the_reason():
    family = Family("transformers", "ViT with a wrong derivative", 16, build_wrong)
    record = examine(family)
    assert {question: record[question]["ok"] for question in QUESTIONS} == dict.fromkeys(QUESTIONS, False)
    assert "relative error" in record["hypergradient"]["reason"]
    assert "has no final linear layer" in record["head"]["reason"]
    assert "1. broken, head: ValueError: ViTForImageClassification has no final" in table({"broken": record})


def test_a_family_that_ends_its_process_does_not_end_the_table(monkeypatch):
    def spin():
        while True:
            pass

    monkeypatch.setattr(compatibility, "CPU_SECONDS", 1)
    record = examine_apart(Family("timm", "spin", 16, spin))
    assert "SIGXCPU" in record["head"]["reason"] or "SIGKILL" in record["head"]["reason"]
    assert "**no**" in table({"spin": record})
