"""The steps that `step_cost.py` measures: a plain one, those of CLP, the textbook's and its peers', on one batch.

All but `plain` do the same update, as `step_cost.py` says.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace

import timm
import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from transformers import default_data_collator

from clp_hf import CLPTrainingArguments
from clp_hf.algorithm import MetaLearner
from clp_hf.bilevel import SCOPES, Classifier, ConvergedHead, dual_attention
from clp_hf.causal import CausalAugmentation, MetaSampler
from clp_hf.data import ImageClassificationDataset, TrainTransform, embedded_birds
from clp_hf.losses.objective import Run
from clp_hf.modeling import find_classifier_head, forward_with_features, load_image_classifier
from clp_hf.modeling.modes import evaluation_layers
from clp_hf.perturbation import ClassStatistics, Evidences, PerturbationNetwork, Sources, training_characteristics
from clp_hf.perturbation.convergence import hypergradient_at_convergence, remember

LEARNING_RATE = 0.01


# ---- models ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Architecture:
    title: str
    image_size: int
    num_classes: int
    build: Callable[[], nn.Module]


def _timm(title: str, name: str, image_size: int, num_classes: int = 10, **model_args) -> Architecture:
    def build():
        module = timm.create_model(name, num_classes=num_classes, **model_args)
        return load_image_classifier(module, model_args=model_args)

    return Architecture(title, image_size, num_classes, build)


def cifar_resnet(num_classes: int) -> Architecture:
    return _timm("ResNet-32 (CIFAR), 32 px", "cifar_resnet32", 32, num_classes)


ARCHITECTURES = {
    "resnet32": cifar_resnet(10),
    "resnet18": _timm("timm ResNet-18, 96 px", "resnet18", 96),
    "efficientnet_lite0": _timm("timm EfficientNet-Lite0, 96 px", "tf_efficientnet_lite0", 96),
    "vit_tiny": _timm("timm ViT-Tiny/16, 96 px", "vit_tiny_patch16_224", 96, img_size=96),
    "resnet50": _timm("timm ResNet-50, 224 px", "resnet50", 224),
    "vit_small": _timm("timm ViT-Small/16, 224 px", "vit_small_patch16_224", 224),
}
CPU_MODELS = ("resnet32", "resnet18", "efficientnet_lite0", "vit_tiny")


class Split(nn.Module):
    """The same network returning logits and features: `higher` calls a clone, which loses forward hooks."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.network = getattr(model, "timm_model", model)

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        features = self.network.forward_head(self.network.forward_features(pixel_values), pre_logits=True)
        return self.network.get_classifier()(features), features


# ---- what a step needs -----------------------------------------------------------------------------------------------


@dataclass
class Setup:
    """Model, optimizers and one batch, the same for every method: everything is drawn from seed 0."""

    architecture: Architecture
    batch_size: int
    model: nn.Module = field(init=False)
    wrapped: nn.Module = field(init=False)  # what is called in training; the model where it is not wrapped
    network_gradient: Sequence[Tensor] = field(init=False)  # the last one, of every tensor of Ω

    def __post_init__(self):
        torch.manual_seed(0)
        classes, size = self.architecture.num_classes, self.architecture.image_size
        self.model = self.wrapped = self.architecture.build().train()
        images = torch.randn(2, self.batch_size, 3, size, size)
        self.pixel_values, self.meta_pixel_values = images
        self.labels, self.meta_labels = torch.randint(classes, (2, self.batch_size))
        self.head = find_classifier_head(self.model, self.pixel_values[:2])[1]
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=LEARNING_RATE, momentum=0.9)
        self.network = PerturbationNetwork(classes)
        nn.init.normal_(self.network.output.weight, std=0.1)  # from zero, half of its gradient would be zero
        self.network_optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-3)
        self.statistics = ClassStatistics(torch.full((classes,), 1 / classes))

    def characteristics(self, logits: Tensor, features: Tensor) -> Tensor:
        values = training_characteristics(logits, features, self.labels, self.head.weight, self.statistics)
        self.network.update_statistics(values)
        return values

    def training_loss(self, logits: Tensor, characteristics: Tensor) -> Tensor:
        return F.cross_entropy(logits + self.network(characteristics, self.labels), self.labels)

    def update_network(self, gradients) -> None:
        self.network_gradient = gradients
        for parameter, gradient in zip(self.network.parameters(), gradients, strict=True):
            parameter.grad = gradient
        self.network_optimizer.step()

    def update_model(self, logits: Tensor, characteristics: Tensor) -> None:
        with torch.no_grad():
            perturbation = self.network(characteristics, self.labels)
        self.optimizer.zero_grad()
        F.cross_entropy(logits + perturbation, self.labels).backward()
        self.optimizer.step()


Step = Callable[[int], None]


def plain(s: Setup) -> Step:
    def step(index):
        s.optimizer.zero_grad()
        F.cross_entropy(s.wrapped(pixel_values=s.pixel_values).logits, s.labels).backward()
        s.optimizer.step()

    return step


def clp(s: Setup, meta_share: float = 1.0, **settings) -> Step:
    """As `CLPTrainer` runs it: `MetaLearner.training_step`, and the step of the optimizer; without data.

    Args:
        s: what the step needs.
        meta_share: of the meta images, that are used.
        settings: in the place of the defaults of `CLPTrainingArguments`.
    """
    args = CLPTrainingArguments("runs", report_to=[], lookahead="sgd", meta_in_training_mode=True, **settings)
    count = round(meta_share * s.batch_size)
    meta = {"pixel_values": s.meta_pixel_values[:count], "labels": s.meta_labels[:count]}
    meta["counterfactual"] = torch.zeros(count, dtype=torch.bool)
    batch = {"pixel_values": s.pixel_values, "labels": s.labels}
    if args.evidence or args.saliency_weight:
        size = s.architecture.image_size
        batch["mask"] = torch.zeros(s.batch_size, 1, size, size)
        batch["mask"][..., size // 4 : 3 * size // 4, size // 4 : 3 * size // 4] = 1
    augmentation = CausalAugmentation(["tile"], ["mix_rand"], IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    sources = Sources(
        s.head.in_features, s.architecture.num_classes, "mask" in batch, augmentation, s.meta_labels, None, None,
        lambda indices: s.meta_pixel_values[list(indices)], torch.Generator().manual_seed(0),
    )  # fmt: skip
    learner = MetaLearner(
        Classifier(s.model, s.head, forward_with_features), s.network, s.statistics,
        Evidences.of(args.evidence, sources), SimpleNamespace(draw=lambda *_: meta),
        SCOPES[args.lookahead_scope], args, {},
    )  # fmt: skip
    learner.begin(s.optimizer)
    take = learner.updates.take

    def remembered(gradient, *where):
        s.network_gradient = gradient.total
        return take(gradient, *where)

    learner.updates.take = remembered
    run = Run(s.wrapped, s.optimizer, 0, sys.maxsize)

    def step(index):
        s.optimizer.zero_grad()
        run.step = index
        learner.training_step(run, batch)
        s.optimizer.step()

    return step


def converged(s: Setup, meta_every: int = 10, memory: int = 2048) -> Step:
    """The same with `lookahead="converged"`. One batch again and again would be an easy problem: what is remembered are
    generated features, ReLU of Gaussians whose variance falls thousandfold over the dimensions."""
    classes, spread = s.architecture.num_classes, torch.logspace(0, -1.5, s.head.in_features)
    head = ConvergedHead(memory, classes, 1e-4)

    def generated(labels):
        features = torch.randn(len(labels), s.head.in_features).relu_() * spread
        features[:, :classes] += F.one_hot(labels, classes)
        return features

    def learn(labels, characteristics):
        remember(head, generated(labels), labels, characteristics, None)

    learn(torch.randint(classes, (memory,)), torch.randn(memory, len(s.network.characteristics)))

    def step(index):
        logits, features = forward_with_features(s.model, s.head, s.pixel_values)
        characteristics = s.characteristics(logits, features)
        learn(s.labels, characteristics)
        if index % meta_every == 0 and head.is_ready():
            with evaluation_layers(s.model), torch.no_grad():
                forward_with_features(s.model, s.head, s.meta_pixel_values)
            counterfactual = torch.zeros_like(s.meta_labels, dtype=torch.bool)
            result, _ = hypergradient_at_convergence(
                head, s.network, generated(s.meta_labels), s.meta_labels, counterfactual
            )
            s.update_network(result.total)
        s.update_model(logits, characteristics)

    return step


def textbook(s: Setup) -> Step:
    split = Split(s.model)
    names = [name for name, _ in split.named_parameters()]

    def step(index):
        buffers = {name: buffer.clone() for name, buffer in split.named_buffers()}
        with dual_attention():
            logits, features = split(s.pixel_values)
            characteristics = s.characteristics(logits, features)
            loss = s.training_loss(logits, characteristics)
            gradients = torch.autograd.grad(loss, list(split.parameters()), create_graph=True)
            lookahead = {
                name: parameter - LEARNING_RATE * gradient
                for name, parameter, gradient in zip(names, split.parameters(), gradients, strict=True)
            }
            meta_logits, _ = torch.func.functional_call(split, {**lookahead, **buffers}, (s.meta_pixel_values,))
            meta_loss = F.cross_entropy(meta_logits, s.meta_labels)
            s.update_network(torch.autograd.grad(meta_loss, list(s.network.parameters())))
        del loss, gradients, lookahead, meta_logits, meta_loss, logits
        s.update_model(split(s.pixel_values)[0], characteristics)

    return step


def with_higher(s: Setup) -> Step:
    import higher

    split = Split(s.model)
    inner_optimizer = torch.optim.SGD(split.parameters(), lr=LEARNING_RATE)

    def step(index):
        with dual_attention(), higher.innerloop_ctx(split, inner_optimizer) as (functional, differentiable_optimizer):
            logits, features = functional(s.pixel_values)
            characteristics = s.characteristics(logits, features)
            differentiable_optimizer.step(s.training_loss(logits, characteristics))
            meta_loss = F.cross_entropy(functional(s.meta_pixel_values)[0], s.meta_labels)
            s.update_network(torch.autograd.grad(meta_loss, list(s.network.parameters())))
        del logits, features, functional, differentiable_optimizer, meta_loss
        s.update_model(split(s.pixel_values)[0], characteristics)

    return step


def with_torchopt(s: Setup) -> Step:
    import torchopt

    split = Split(s.model)
    inner_optimizer = torchopt.MetaSGD(split, lr=LEARNING_RATE)

    def step(index):
        network_state = torchopt.extract_state_dict(split, by="reference", detach_buffers=True)
        optimizer_state = torchopt.extract_state_dict(inner_optimizer, by="reference")
        with dual_attention():
            logits, features = split(s.pixel_values)
            characteristics = s.characteristics(logits, features)
            inner_optimizer.step(s.training_loss(logits, characteristics))
            meta_loss = F.cross_entropy(split(s.meta_pixel_values)[0], s.meta_labels)
            s.update_network(torch.autograd.grad(meta_loss, list(s.network.parameters())))
        del logits, features, meta_loss
        torchopt.recover_state_dict(split, network_state)
        torchopt.recover_state_dict(inner_optimizer, optimizer_state)
        torchopt.stop_gradient(split)
        s.update_model(split(s.pixel_values)[0], characteristics)

    return step


def with_betty(s: Setup) -> Step:
    """Its default, `darts`: the training loss at two points beside the weights. Approximate, and at the weights that
    the step itself leads to, as with `reuse_gradient`."""
    from betty.configs import Config, EngineConfig
    from betty.engine import Engine
    from betty.problems import ImplicitProblem

    class Inner(ImplicitProblem):
        def training_step(self, batch):
            logits, features = self(batch[0])
            if not seen:  # at the other two points they are those of the step, through which nothing is derived
                seen.append(s.characteristics(logits, features))
            return s.training_loss(logits, *seen)

    class Outer(ImplicitProblem):
        def training_step(self, batch):
            return F.cross_entropy(self.inner(batch[0])[0], batch[1])

        def custom_optimizer_step(self):
            s.network_gradient = [LEARNING_RATE * parameter.grad for parameter in self.module.parameters()]
            s.network_optimizer.step()

    split, seen = Split(s.model), []
    batches = {"inner": [(s.pixel_values, s.labels)], "outer": [(s.meta_pixel_values, s.meta_labels)]}
    inner = Inner("inner", Config(type="darts"), split, s.optimizer, None, batches["inner"])
    outer = Outer("outer", Config(retain_graph=True), s.network, s.network_optimizer, None, batches["outer"])
    dependencies = {"u2l": {outer: [inner]}, "l2u": {inner: [outer]}}
    engine = Engine([outer, inner], EngineConfig(), dependencies)
    engine.train()

    def step(index):
        seen.clear()
        engine.train_step()

    return step


def data_path(s: Setup) -> Step:
    """The data of one CLP step: two batches of crops with masks, and the causal augmentation of the second."""
    size = s.architecture.image_size
    birds = embedded_birds(8 * s.batch_size, 4, 4, image_size=size * 4 // 3)["train"]
    transform = TrainTransform(size, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    dataset = ImageClassificationDataset(birds, transform)
    augmentation = CausalAugmentation(["tile"], ["mix_rand"], IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    sampler = iter(MetaSampler(len(dataset), s.batch_size))
    generator = torch.Generator().manual_seed(0)

    def step(index):
        batch = default_data_collator(dataset.__getitems__(torch.randperm(len(dataset))[: s.batch_size].tolist()))
        indices, roles = zip(*next(sampler), strict=True)
        meta = default_data_collator(dataset.__getitems__(list(indices)))
        role = torch.tensor(roles)
        augmentation(meta["pixel_values"], meta["labels"], meta["mask"], role, generator=generator, donors=batch)

    return step


@dataclass(frozen=True)
class Method:
    build: Callable[[Setup], Step]
    cycle: int = 1  # steps after which the cost repeats
    same_update: bool = True  # whether its hypergradient is that of the textbook


METHODS = {
    "plain": Method(plain, same_update=False),
    "CLP": Method(clp),
    "CLP, reuse_gradient": Method(partial(clp, reuse_gradient=True)),
    "CLP, meta_every=10": Method(partial(clp, meta_every=10), cycle=10),
    "CLP, saliency": Method(partial(clp, saliency_weight=0.2), same_update=False),
    "CLP, a quarter of the meta images": Method(partial(clp, meta_share=0.25), same_update=False),
    "CLP, recompute": Method(partial(clp, recompute_training_forward=True)),
    "CLP, finite_difference": Method(partial(clp, hypergradient="finite_difference")),
    "CLP, double_backward": Method(partial(clp, hypergradient="double_backward")),
    "CLP, head scope": Method(partial(clp, lookahead_scope="head"), same_update=False),
    "CLP, head scope, background evidence": Method(
        partial(clp, lookahead_scope="head", evidence=["background"]), same_update=False
    ),
    "CLP, head scope, meta_every=4": Method(
        partial(clp, lookahead_scope="head", meta_every=4), cycle=4, same_update=False
    ),
    "CLP, head scope, meta_every=4, background evidence": Method(
        partial(clp, lookahead_scope="head", meta_every=4, evidence=["background"]), cycle=4, same_update=False
    ),
    "CLP converged, meta_every=10": Method(converged, cycle=10, same_update=False),
    "data and augmentation alone": Method(data_path, same_update=False),
    "textbook": Method(textbook),
    "higher": Method(with_higher),
    "torchopt": Method(with_torchopt),
    "betty": Method(with_betty),
}
