"""Tiny models and generated images: no network, no GPU, seconds."""

import os
from functools import cache

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Before torch is imported, here and in the processes of the tests: tiny models gain nothing from threads, and where
# several processes share the cores, threads that wait for each other take several times as long.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch
from torch.utils.data import Dataset
from transformers import (
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

from clp_hf import CLPTrainer, CLPTrainingArguments
from clp_hf.base.publishing import PublishingTrainer
from clp_hf.hsfm import FeatureSet

SIZE = 16
TRAINER_ARGUMENTS = (
    "meta_dataset", "eval_dataset", "callbacks", "optimizers", "compute_metrics", "model_init", "processing_class",
    "card_details",
)  # fmt: skip


class Squares(Dataset):
    """Bright squares (the class is their size) on a dark or light ground (the attribute), as CLPTrainer takes them."""

    def __init__(self, length, num_labels=3, columns=("mask", "group"), start=0):
        self.labels = [index % num_labels for index in range(length)]
        self.group = [2 * label + index // num_labels % 2 for index, label in enumerate(self.labels)]
        if "group" not in columns:
            self.group = None
        self.columns, self.start = columns, start

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        if index >= len(self):
            raise IndexError(index)
        generator = torch.Generator().manual_seed(self.start + index)
        top, left = torch.randint(0, 6, (2,), generator=generator).tolist()
        side = 4 + 2 * self.labels[index]
        mask = torch.zeros(1, SIZE, SIZE)
        mask[:, top : top + side, left : left + side] = 1
        ground = 0.3 * (index // 3 % 2)
        pixels = ground + 0.1 * torch.rand(3, SIZE, SIZE, generator=generator) + 0.5 * mask
        item = {"pixel_values": 2 * pixels - 1, "labels": self.labels[index]}
        if "mask" in self.columns:
            item["mask"] = mask
        if "group" in self.columns:
            item["group"] = self.group[index]
        return item


def vit(num_labels=3, **kwargs):
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=SIZE,
        patch_size=4,
        num_labels=num_labels,
        **kwargs,
    )
    return ViTForImageClassification(config)


def resnet(num_labels=3, seed=0):
    torch.manual_seed(seed)
    return ResNetForImageClassification(
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=num_labels)
    )


@pytest.fixture(autouse=True)
def _cards_without_pictures(request, monkeypatch):
    """Drawing takes a second or two, and very many tests write a card: marked ones look at what is drawn."""
    if request.node.get_closest_marker("pictures") is None:
        monkeypatch.setattr(PublishingTrainer, "_save_pictures", lambda *args: {})
        monkeypatch.setattr(PublishingTrainer, "_draw_worst", lambda *args: None)


@pytest.fixture
def make_trainer(tmp_path):
    """A trainer on tiny data; keyword arguments go to the trainer where it has them, else to its arguments."""

    def make(model=None, train_dataset=None, **kwargs):
        trainer_kwargs = {name: kwargs.pop(name) for name in TRAINER_ARGUMENTS if name in kwargs}
        settings = {
            "output_dir": str(tmp_path / "run"),
            "per_device_train_batch_size": 8,
            "max_steps": 4,
            "learning_rate": 1e-2,
            "logging_steps": 1,
            "report_to": [],
            "save_strategy": "no",
            "use_cpu": True,
            "disable_tqdm": True,
            "meta_samples": 2,
        } | kwargs
        if "model_init" not in trainer_kwargs:
            trainer_kwargs["model"] = vit() if model is None else model
        trainer_kwargs.setdefault("eval_dataset", Squares(24, start=1000))
        trainer_kwargs.setdefault("processing_class", ViTImageProcessor(size={"height": SIZE, "width": SIZE}))
        return CLPTrainer(
            args=CLPTrainingArguments(**settings),
            train_dataset=Squares(60) if train_dataset is None else train_dataset,
            **trainer_kwargs,
        )

    return make


@pytest.fixture(scope="session")
def spurious():
    """Features with one causal and one easier spurious coordinate, as a frozen backbone would give them.

    `(train, validation, test, head)`: train 95 % spurious, the others balanced, the head fitted by ERM.
    """

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
