"""The recorded dual pass: exact whatever the training pass left behind, and taking what it left."""

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from clp_hf.bilevel import Recording, dual_attention, run_at
from clp_hf.bilevel.dual import replayed


class Checkpointed(nn.Sequential):
    def forward(self, x):
        return checkpoint(super().forward, x, use_reentrant=False)


class CalledTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x):
        for _ in range(2):
            x = F.relu(self.norm(self.conv(x)))
        return x


class NormalisedImagesToo(nn.Module):
    """The same normalisation of what has no tangent, then of what has one."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.norm(self.conv(self.norm(x)))


class Attention(nn.Module):
    """Tokens that attend to each other, then are normalised; `settings` go to the attention."""

    def __init__(self, normalise=True, **settings):
        super().__init__()
        self.project, self.settings = nn.Linear(8, 3 * 8), settings
        self.norm = nn.LayerNorm(8) if normalise else nn.Identity()

    def forward(self, x):
        q, k, v = self.project(self.norm(x.flatten(2).mT[..., :4].repeat(1, 1, 2))).unflatten(-1, (3, 2, 4)).unbind(-3)
        y = F.scaled_dot_product_attention(*(part.transpose(1, 2) for part in (q, k, v)), **self.settings)
        return self.norm(y.transpose(1, 2).flatten(2))


class Residual(nn.Module):
    """Two convolutions whose normalised images are overwritten; `read` sees them before."""

    def __init__(self, activation, read=None):
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.last = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.activation, self.read = activation, read

    def forward(self, x):
        first = self.activation(self.norm(self.first(x)))
        x = self.last(self.second(first))
        seen = 0 if self.read is None else self.read(x)
        x += first
        x = self.activation(x)
        return self.second(x).flatten(1) + seen


class ResidualOfTokens(nn.Module):
    """Products of which autograd keeps only the sums with a residual stream."""

    def __init__(self):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x):
        for _ in range(2):
            x = x + F.dropout(self.down(F.gelu(self.up(self.norm(x)))), 0.0, self.training)
        return self.norm(x)


class ActivationForgotten(nn.Module):
    """What an activation in place returns is its input, and nobody has to take it from there."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.norm(self.conv(x))
        F.relu(x, inplace=True)
        return self.conv(x)


def frozen(module):
    return module.requires_grad_(False)


MODULES = {
    "convolution_normalisation": lambda: nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
    "activation_in_place": lambda: nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 1)),
    "groups_strides_reflection": lambda: nn.Sequential(
        nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2, padding_mode="reflect", bias=False), nn.BatchNorm2d(8)
    ),
    "padding_by_name": lambda: nn.Sequential(nn.Conv2d(4, 4, 3, padding="same", dilation=2), nn.GELU()),
    "one_dimension": lambda: nn.Sequential(nn.Flatten(2), nn.Conv1d(4, 3, 5), nn.BatchNorm1d(3)),
    "features": lambda: nn.Sequential(nn.Flatten(), nn.Linear(256, 6), nn.BatchNorm1d(6), nn.Linear(6, 3, bias=False)),
    "normalisation_in_evaluation": lambda: nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4).eval(), nn.ReLU()),
    "normalisation_without_statistics": lambda: nn.Sequential(
        nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4, track_running_stats=False).eval()
    ),
    "normalisation_without_weights": lambda: nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4, affine=False)),
    "frozen_convolution": lambda: nn.Sequential(nn.Conv2d(4, 4, 3), frozen(nn.Conv2d(4, 4, 3)), nn.BatchNorm2d(4)),
    "frozen_normalisation": lambda: nn.Sequential(nn.Conv2d(4, 4, 3), frozen(nn.BatchNorm2d(4)), nn.ReLU()),
    "checkpointed": lambda: Checkpointed(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3)),
    "called_twice": CalledTwice,
    "residual_in_place": lambda: Residual(nn.ReLU(inplace=True)),
    "residual_bounded_in_place": lambda: Residual(nn.ReLU6(inplace=True)),
    "residual_hardtanh": lambda: Residual(nn.Hardtanh(-0.3, 0.4)),
    "residual_silu_in_place": lambda: Residual(nn.SiLU(inplace=True)),
    "residual_read_before": lambda: Residual(nn.ReLU(inplace=True), lambda x: x.exp().flatten(1)),
    "residual_read_in_a_list_before": lambda: Residual(nn.ReLU(inplace=True), lambda x: torch.stack([x]).sum().exp()),
    "residual_viewed_before": lambda: Residual(nn.ReLU(inplace=True), lambda x: x[0].mean().exp()),
    "residual_frozen_normalisation": lambda: (lambda m: (frozen(m.last), m)[1])(Residual(nn.ReLU(inplace=True))),
    "residual_without_tangent": lambda: (lambda m: (frozen(m.first), frozen(m.norm), m)[2])(
        Residual(nn.ReLU(inplace=True))
    ),
    "residual_of_tokens": lambda: nn.Sequential(nn.Flatten(2), nn.Linear(64, 8), ResidualOfTokens()),
    "activation_forgotten": ActivationForgotten,
    "checkpointed_in_place": lambda: Checkpointed(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)),
    "attention": Attention,
    "attention_scaled": lambda: Attention(scale=0.3, normalise=False),
    "attention_causal": lambda: Attention(is_causal=True),
    "attention_masked": lambda: Attention(attn_mask=torch.ones(64, 64).tril().bool()),
    "layers_normalised_by_a_frozen_layer": lambda: (lambda m: (frozen(m.norm), m)[1])(Attention()),
    "layer_normalisation_of_one_weight": lambda: (lambda m: (m.norm.weight.requires_grad_(False), m)[1])(Attention()),
    "layer_normalisation_without_weights": lambda: nn.Sequential(
        nn.Conv2d(4, 4, 3), nn.LayerNorm(6, elementwise_affine=False), nn.LayerNorm(6, bias=False)
    ),
    "layer_normalisation_after": lambda: nn.Sequential(nn.Conv2d(4, 4, 3), nn.LayerNorm(6)),
    "images_normalised_too": NormalisedImagesToo,
    "images_normalised_by_a_frozen_layer": lambda: (lambda m: (frozen(m.norm), m)[1])(NormalisedImagesToo()),
}


def tangents(module, images, recording):
    """`J · direction` by the recorded pass, by PyTorch's rules alone, and the logits of both."""
    parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
    direction = {name: torch.randn_like(p) for name, p in parameters.items()}

    def dual_pass():
        duals = {name: forward_ad.make_dual(p.detach(), direction[name]) for name, p in parameters.items()}
        return forward_ad.unpack_dual(run_at(module, duals, lambda: module(images)))

    with torch.no_grad(), forward_ad.dual_level():
        with replayed(recording):
            found = dual_pass()
        with dual_attention():
            return found, dual_pass()


@pytest.mark.parametrize("build", MODULES.values(), ids=MODULES)
def test_recorded_pass_equals_pytorch_forward_mode(build):
    torch.manual_seed(0)
    module = build().double()
    for norm in module.modules():
        if isinstance(norm, (nn.modules.batchnorm._BatchNorm, nn.LayerNorm)):
            for parameter in norm.parameters():
                nn.init.uniform_(parameter)
    images = torch.randn(5, 4, 8, 8, dtype=torch.float64) + 3
    with Recording() as recording:
        output = module(images)
    found, expected = tangents(module, images, recording)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)
    output.sum().backward()  # the training graph, from which values were taken, is intact


@pytest.mark.parametrize(
    "build", [Attention, MODULES["convolution_normalisation"], MODULES["layer_normalisation_after"]]
)
def test_the_rules_hold_under_autocast(build):
    torch.manual_seed(0)
    module, images = build(), torch.randn(5, 4, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with Recording() as recording:
            module(images)
        (_, found), (_, expected) = tangents(module, images, recording)
    assert (found - expected).norm() < 0.02 * expected.norm()


def counted(operator, module, images, recording):
    with torch.profiler.profile() as profile:
        tangents(module, images, recording)
    return next(event.count for event in profile.key_averages() if event.key == operator)


@pytest.mark.parametrize(
    ("build", "operator", "spared"),
    [
        (lambda: nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), "aten::convolution", 1),
        (lambda: nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)), "aten::batch_norm", 1),
        # What activations in place have written over is no more than their result, which the next layer keeps.
        (lambda: Residual(nn.ReLU(inplace=True)), "aten::batch_norm", 2),
        (lambda: Residual(nn.ReLU6(inplace=True)), "aten::hardtanh_", 2),
        (lambda: Residual(nn.ReLU(inplace=True), lambda x: x.mean()), "aten::batch_norm", 1),
        (lambda: nn.Sequential(nn.Flatten(2), nn.Linear(64, 8), ResidualOfTokens()), "aten::linear", 5),
        (lambda: nn.Sequential(nn.Flatten(2), nn.Linear(64, 8), ResidualOfTokens()), "aten::gelu", 2),
    ],
)  # fmt: skip
def test_what_is_kept_is_not_computed_again(build, operator, spared):
    module, images = build(), torch.randn(5, 4, 8, 8)
    with Recording() as recording:
        output = module(images)
    kept = counted(operator, module, images, recording)
    del output  # and with it the graph: the recording keeps no activation alive
    assert counted(operator, module, images, recording) == kept + spared
