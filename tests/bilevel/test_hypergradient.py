"""The engines against each other and against what they must not do to the module."""

import copy

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.models.metaformer import MetaFormer
from timm.models.mlp_mixer import MlpMixer
from torch import nn
from transformers import (
    BeitConfig,
    BeitForImageClassification,
    ConvNextConfig,
    ConvNextForImageClassification,
    Dinov2Config,
    Dinov2ForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    SwinConfig,
    SwinForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from clp_hf.bilevel import ENGINES, TrainingPass, dual_attention, hypergradient, run_at

NUM_LABELS = 3
TRANSFORMER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "hidden_dropout_prob": 0.2,
    "attention_probs_dropout_prob": 0.2,
    "image_size": 32,
    "patch_size": 8,
    "num_labels": NUM_LABELS,
}


def timm_model(name, **kwargs):
    return lambda: timm.create_model(name, num_classes=NUM_LABELS, **kwargs)


def checkpointed(build):
    def build_checkpointed():
        model = build()
        if hasattr(model, "gradient_checkpointing_enable"):
            model.gradient_checkpointing_enable({"use_reentrant": False})
        else:
            model.set_grad_checkpointing()
        return model

    return build_checkpointed


# Small versions of real families: batch-norm in train mode, attention, dropout, drop-path, layer scale, checkpointing.
MODELS = {
    "resnet": timm_model("resnet10t", drop_rate=0.2),
    "resnext": timm_model("resnext26ts", drop_path_rate=0.2),
    "densenet": timm_model("densenet121", growth_rate=4, block_config=(2, 2), drop_rate=0.2),
    "regnet": timm_model("regnetx_002", drop_path_rate=0.2),
    "mobilenet": timm_model("mobilenetv2_050", drop_rate=0.2),
    "efficientnet": timm_model("tf_efficientnet_lite0", drop_rate=0.2, drop_path_rate=0.2),
    "convnext_layer_scale": timm_model("convnext_atto", depths=(1, 1, 2, 1), dims=(8, 16, 24, 32), drop_path_rate=0.2),
    "vit_fused_attention": timm_model(
        "vit_tiny_patch16_224",
        img_size=64,
        embed_dim=48,
        depth=3,
        num_heads=3,
        drop_rate=0.1,
        attn_drop_rate=0.1,
        drop_path_rate=0.2,
        init_values=0.1,
    ),
    "vit_checkpointed": checkpointed(
        timm_model("vit_tiny_patch16_224", img_size=64, embed_dim=48, depth=3, num_heads=3, drop_path_rate=0.2)
    ),
    "mixer": lambda: MlpMixer(NUM_LABELS, img_size=64, embed_dim=32, num_blocks=2, drop_path_rate=0.2),
    "poolformer": lambda: MetaFormer(num_classes=NUM_LABELS, depths=(1, 1), dims=(8, 16), drop_path_rate=0.2),
    "transformers_vit": lambda: ViTForImageClassification(ViTConfig(**TRANSFORMER)),
    "transformers_vit_checkpointed": checkpointed(lambda: ViTForImageClassification(ViTConfig(**TRANSFORMER))),
    "transformers_dinov2": lambda: Dinov2ForImageClassification(Dinov2Config(**TRANSFORMER, drop_path_rate=0.2)),
    "transformers_beit": lambda: BeitForImageClassification(BeitConfig(**TRANSFORMER, drop_path_rate=0.2)),
    "transformers_swin": lambda: SwinForImageClassification(
        SwinConfig(
            image_size=32,
            patch_size=2,
            embed_dim=16,
            depths=[1, 1],
            num_heads=[2, 2],
            window_size=4,
            drop_path_rate=0.2,
            num_labels=NUM_LABELS,
        )
    ),
    "transformers_convnext": lambda: ConvNextForImageClassification(
        ConvNextConfig(depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 32], drop_path_rate=0.2, num_labels=NUM_LABELS)
    ),
    "transformers_resnet": lambda: ResNetForImageClassification(
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=NUM_LABELS)
    ),
}


class Bilevel:
    """A module, a perturbation network, a training and a meta batch in float64, with random masks from a fixed seed."""

    def __init__(self, build, size=64, device="cpu"):
        torch.manual_seed(0)
        self.device = device
        kw = {"dtype": torch.float64, "device": device}
        self.module = build().to(**kw).train()
        self.outer_network = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, NUM_LABELS)).to(**kw)
        self.images, self.meta_images = torch.randn(2, 4, 3, size, size, **kw)
        self.characteristics, self.meta_characteristics = torch.randn(2, 4, 5, **kw)
        self.labels = torch.tensor([0, 1, 2, 1], device=device)

    def forward(self, images):
        output = self.module(images)
        return getattr(output, "logits", output)

    def training_pass(self):
        torch.manual_seed(1)
        return TrainingPass.run(lambda: self.forward(self.images), self.device)

    def inner_loss(self, logits):
        return F.cross_entropy(logits + self.outer_network(self.characteristics), self.labels)

    def outer_loss(self):
        torch.manual_seed(2)
        logits = self.forward(self.meta_images)
        return F.cross_entropy(logits + 0.1 * self.outer_network(self.meta_characteristics), self.labels)

    @dual_attention()
    def hypergradient(self, engine, **kwargs):
        """From an untouched copy, since a training pass moves batch-norm statistics."""
        problem = copy.deepcopy(self)
        return hypergradient(
            problem.module,
            problem.training_pass(),
            problem.inner_loss,
            problem.outer_loss,
            list(problem.outer_network.parameters()),
            kwargs.pop("step", 0.1),
            engine=engine,
            **kwargs,
        )


def flat(tensors):
    return torch.cat([tensor.flatten() for tensor in tensors])


def relative_difference(a, b):
    return ((flat(a) - flat(b)).norm() / flat(b).norm()).item()


def problem_of(name, device="cpu"):
    size = 32 if name.startswith("transformers") else 64
    return Bilevel(MODELS[name], size, device)


@pytest.mark.parametrize("name", MODELS)
def test_forward_engine_equals_double_backward(name):
    problem = problem_of(name)
    exact, oracle = problem.hypergradient("forward"), problem.hypergradient("double_backward")
    assert flat(oracle.indirect).norm() > 0
    for part in ("direct", "indirect", "total"):
        assert relative_difference(getattr(exact, part), getattr(oracle, part)) < 1e-10
    torch.testing.assert_close(exact.outer_loss, oracle.outer_loss)


@pytest.mark.parametrize("name", ["efficientnet", "vit_fused_attention", "transformers_swin", "convnext_layer_scale"])
def test_finite_difference_has_half_of_the_digits(name):
    problem = problem_of(name)
    exact, difference = problem.hypergradient("forward"), problem.hypergradient("finite_difference")
    assert relative_difference(difference.indirect, exact.indirect) < 1e-5


def test_fast_attention_kernels_in_the_training_pass_agree_with_the_dual_pass():
    problem = Bilevel(timm_model("vit_tiny_patch16_224", img_size=64, embed_dim=48, depth=3, num_heads=3))
    oracle = problem.hypergradient("double_backward")
    exact = hypergradient(
        problem.module,
        problem.training_pass(),
        problem.inner_loss,
        problem.outer_loss,
        list(problem.outer_network.parameters()),
        step=0.1,
    )
    assert relative_difference(exact.total, oracle.total) < 1e-10


def test_forward_engine_differentiates_where_double_backward_cannot():
    problem = Bilevel(timm_model("mobilenetv3_small_050"))
    with pytest.raises(RuntimeError, match="hardsigmoid"):
        problem.hypergradient("double_backward")
    assert torch.isfinite(flat(problem.hypergradient("forward").total)).all()


def test_an_operator_without_forward_derivative_is_named_with_what_works():
    class Distances(nn.Module):
        def __init__(self):
            super().__init__()
            self.features, self.centres = nn.Linear(3 * 8 * 8, 4), nn.Parameter(torch.randn(NUM_LABELS, 4))

        def forward(self, images):
            return -torch.cdist(self.features(images.flatten(1)), self.centres)

    problem = Bilevel(Distances, size=8)
    with pytest.raises(NotImplementedError, match=r"choose the finite_difference engine.*_cdist_forward"):
        problem.hypergradient("forward")
    assert torch.isfinite(flat(problem.hypergradient("finite_difference").total)).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_gives_the_textbooks_hypergradient(engine):
    problem = problem_of("transformers_vit")
    assert (
        relative_difference(problem.hypergradient(engine).total, problem.hypergradient("double_backward").total) < 1e-4
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_the_module_is_not_written_to_and_the_graph_serves_the_final_backward(engine):
    problem = problem_of("resnet")
    training_pass = problem.training_pass()
    before = copy.deepcopy(problem.module.state_dict())
    hypergradient(
        problem.module,
        training_pass,
        problem.inner_loss,
        problem.outer_loss,
        list(problem.outer_network.parameters()),
        step=0.1,
        engine=engine,
    )
    for name, tensor in problem.module.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(parameter.grad is None for parameter in problem.module.parameters())
    problem.inner_loss(training_pass.logits).backward()
    assert all(parameter.grad is not None for parameter in problem.module.parameters())


def test_random_stream_continues_as_if_no_hypergradient_had_been_taken():
    problem = problem_of("efficientnet")
    training_pass = problem.training_pass()
    expected = copy.deepcopy(torch.get_rng_state())
    hypergradient(
        problem.module,
        training_pass,
        problem.inner_loss,
        lambda: problem.module.classifier.weight.square().sum(),
        list(problem.outer_network.parameters()),
        step=0.1,
    )
    assert torch.equal(torch.get_rng_state(), expected)


def test_frozen_parameters_do_not_look_ahead():
    problem = problem_of("resnet")
    problem.module.requires_grad_(False)
    problem.module.get_classifier().requires_grad_(True)
    exact, oracle = problem.hypergradient("forward"), problem.hypergradient("double_backward")
    assert relative_difference(exact.total, oracle.total) < 1e-10

    # The head alone, on cached features, is the same problem: this is `lookahead_scope="head"`.
    problem = copy.deepcopy(problem)
    head = problem.module.get_classifier()
    with torch.no_grad():
        torch.manual_seed(1)
        features = problem.module.forward_head(problem.module.forward_features(problem.images), pre_logits=True)
        torch.manual_seed(2)
        meta_features = problem.module.forward_head(
            problem.module.forward_features(problem.meta_images), pre_logits=True
        )
    on_features = hypergradient(
        head,
        TrainingPass.run(lambda: head(features)),
        problem.inner_loss,
        lambda: F.cross_entropy(
            head(meta_features) + 0.1 * problem.outer_network(problem.meta_characteristics), problem.labels
        ),
        list(problem.outer_network.parameters()),
        step=0.1,
    )
    assert relative_difference(on_features.total, oracle.total) < 1e-10


def test_step_sizes_per_parameter_and_a_penalty_without_hyperparameters():
    """A look-ahead with elementwise sizes and an extra loss term, against the textbook formula written out."""
    problem = problem_of("convnext_layer_scale")
    parameters = dict(problem.module.named_parameters())
    sizes = {name: torch.rand_like(parameter) for name, parameter in parameters.items()}
    training_pass = problem.training_pass()
    penalty = sum(parameter.square().sum() for parameter in parameters.values())
    result = hypergradient(
        problem.module,
        TrainingPass(training_pass.forward, training_pass.logits, training_pass.recording, penalty),
        problem.inner_loss,
        problem.outer_loss,
        list(problem.outer_network.parameters()),
        step=lambda gradients: sizes,
    )
    loss = problem.inner_loss(training_pass.logits) + penalty
    gradients = torch.autograd.grad(loss, list(parameters.values()), create_graph=True)
    lookahead = {
        name: parameter - sizes[name] * gradient
        for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True)
    }
    outer = run_at(problem.module, lookahead, problem.outer_loss)
    expected = torch.autograd.grad(outer, list(problem.outer_network.parameters()))
    assert relative_difference(result.total, expected) < 1e-10


def test_run_at_is_functional_call_with_shared_parameters_and_puts_all_back():
    layer, norm = nn.Linear(2, 2), nn.BatchNorm1d(2)
    module = nn.Sequential(layer, norm, nn.Sequential(layer, norm), nn.BatchNorm1d(2, affine=False))
    images = torch.randn(4, 2)
    others = {name: torch.randn_like(parameter) for name, parameter in module.named_parameters()}
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    expected = torch.func.functional_call(copy.deepcopy(module), others, (images,))
    before = [*module.parameters(), *module.buffers()]
    assert torch.equal(run_at(module, others, lambda: module(images)), expected)
    with pytest.raises(ZeroDivisionError):
        run_at(module, others, lambda: (module(images), 1 / 0))
    assert all(a is b for a, b in zip([*module.parameters(), *module.buffers()], before, strict=True))
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in module.named_buffers())


def test_run_at_uses_other_parameters_and_leaves_buffers_alone():
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).train()
    statistics = module[1].running_mean.clone()
    zeros = {name: torch.zeros_like(parameter) for name, parameter in module.named_parameters()}
    assert run_at(module, zeros, lambda: module(torch.randn(4, 2))).abs().max() == 0
    assert torch.equal(module[1].running_mean, statistics)


def test_unknown_engine_is_refused_by_name():
    with pytest.raises(ValueError, match="forward, finite_difference, double_backward"):
        problem_of("mixer").hypergradient("reverse")
