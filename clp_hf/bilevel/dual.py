"""A forward pass with dual numbers, `J · direction`, which takes what the training pass computed from where it lies.

PyTorch's forward mode evaluates every operator and its derivative: three convolutions where a backward pass has two,
and some twenty passes over memory for one normalisation. But the values are those of the training pass, whose
graph still holds most of them. `Recording` notes where; the rules below take them from there and compute tangents only.
"""

import warnings
from contextlib import AbstractContextManager, contextmanager
from functools import cache, partial
from typing import ClassVar

import torch
import torch.autograd.forward_ad as forward_ad
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from .recording import ADD_IN_PLACE, CLAMPS, PRODUCTS, Recording, Replay

# Up to PyTorch 2.11 activation checkpointing marks its inputs even where no gradient is taken, by a function (whose
# output is empty) without forward derivative.
if hasattr(torch.utils.checkpoint, "_NoopSaveInputs"):
    torch.utils.checkpoint._NoopSaveInputs.jvp = staticmethod(lambda context, empty, *others: empty)

UNIT_EPS = 2.0**-10
# What `forward_ad.make_dual` and `unpack_dual` call, who look around first: as long as all else that a rule does.
_make_dual, _unpack = partial(torch._make_dual, level=0), partial(torch._unpack_dual, level=0)


@cache
def load_rules() -> None:
    """Have PyTorch compile its own rules, as it does at the first dual number, without a word on how it does that."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)
        forward_ad.make_dual(torch.zeros(1), torch.zeros(1))


def dual_attention() -> AbstractContextManager:
    """Attention by plain matrix products, the one backend with forward and second derivatives."""
    return sdpa_kernel(SDPBackend.MATH)


@contextmanager
def replayed(recording: Recording):
    """Inside, the recorded pass, run with dual numbers, draws the same masks and computes tangents only."""
    with recording.random_state.replayed(), dual_attention(), _TangentRules(recording.replay()):
        yield


class _TangentRules(TorchFunctionMode):
    """Own forward derivatives of products, convolutions, normalisation, activations and attention; PyTorch's of all
    else."""

    def __init__(self, replay: Replay):
        super().__init__()
        self._replay = replay
        self._clamped: dict[int, Tensor] = {}  # by identity: what has the value that an activation in place will give
        self._constants: dict = {}  # of `_affine`

    def __torch_function__(self, function, types, args=(), kwargs=None):
        rule = self.RULES.get(function)
        kwargs = kwargs or {}
        return function(*args, **kwargs) if rule is None else rule(self, function, *args, **kwargs)

    def _product(self, function, input, weight, bias=None, *args, **kwargs):
        """Bilinear: d(x ∗ w + b) = dx ∗ w + x ∗ dw + db."""
        (x, dx), (w, dw) = _unpack(input), _unpack(weight)
        b, db = (None, None) if bias is None else _unpack(bias)
        value, _ = self._replay.next(w.data_ptr())
        if value is None:
            value = function(x, w, b, *args, **kwargs)
        if dx is None and dw is None:
            return value if db is None else function(x, w, bias, *args, **kwargs)
        if dw is None:
            tangent = function(dx, w, db, *args, **kwargs)
        else:
            tangent = function(x, dw, db, *args, **kwargs)
            if dx is not None:
                tangent += function(dx, w, None, *args, **kwargs)
        return _make_dual(value, tangent)

    def _clamp(self, function, input, *args, inplace=False, **kwargs):
        """d min(max(x, lower), upper) = dx where the result is between, else 0."""
        value, _ = self._replay.next(function)
        own = self._clamped.pop(id(input), None) is not None
        x, dx = _unpack(input)
        if dx is None or (inplace and not own):
            return function(input, *args, inplace=inplace, **kwargs)
        bounds = CLAMPS[function](*args, **kwargs)
        if own:
            torch.ops.aten.hardtanh_backward.grad_input(dx, x, *bounds, grad_input=dx)
            return input
        value = function(x, *args, **kwargs) if value is None else value
        return _make_dual(value, torch.ops.aten.hardtanh_backward(dx, value, *bounds))

    def _gelu(self, function, input, approximate="none"):
        value, _ = self._replay.next(F.gelu)
        x, dx = _unpack(input)
        if dx is None:
            return F.gelu(input, approximate=approximate)
        value = F.gelu(x, approximate=approximate) if value is None else value
        return _make_dual(value, torch.ops.aten.gelu_backward(dx, x, approximate=approximate))

    def _batch_norm(
        self, function, input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5
    ):
        """With x̂ = (x − μ) r: d(w x̂ + b) = w r (dx − [mean(dx) + x̂ mean(x̂ dx)]) + dw x̂ + db; [·] in training only.

        Written as scale · dx + slope · x + shift, whose coefficients are as small as a channel is, this takes few
        passes over the images. The means are the gradients of weight and bias for an output gradient of dx, which the
        backward pass has in one pass.
        """
        x, dx = _unpack(input)
        value, call = None, None
        if weight is not None:
            w, dw = _unpack(weight)
            value, call = self._replay.next(w.data_ptr())
        if dx is None or weight is None or bias is None:
            return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
        b, db = _unpack(bias)
        use_batch = training or running_mean is None
        if use_batch:
            mean, inverse_deviation = (call and call.statistics) or _batch_statistics(x, eps)
        else:
            mean, inverse_deviation = running_mean, (running_var + eps).rsqrt()
        scale = w * inverse_deviation
        weight_tangent = torch.zeros_like(scale) if dw is None else dw
        shift = torch.zeros_like(scale) if db is None else db
        if use_batch:
            _, weight_gradient, bias_gradient = torch.ops.aten.native_batch_norm_backward(
                dx, x, w, None, None, mean, inverse_deviation, True, eps, [False, True, True]
            )
            share = -x.shape[1] / x.numel()
            weight_tangent = torch.addcmul(weight_tangent, scale, weight_gradient, value=share)
            shift = torch.addcmul(shift, scale, bias_gradient, value=share)
        slope = weight_tangent * inverse_deviation
        tangent = self._affine(dx, scale, torch.addcmul(shift, slope, mean, value=-1))
        tangent.addcmul_(x, slope.view(1, -1, *[1] * (x.dim() - 2)))
        if value is None:
            return _make_dual(self._affine(x, scale, torch.addcmul(b, scale, mean, value=-1)), tangent)
        dual = _make_dual(value, tangent)
        if call.clamped:
            self._clamped[id(dual)] = dual
        return dual

    def _add_in_place(self, function, input, *args, **kwargs):
        if id(input) not in self._clamped:
            return function(input, *args, **kwargs)
        tangent, other = (_unpack(tensor)[1] for tensor in (input, *args))
        if other is not None:
            tangent += other
        return input

    def _affine(self, images: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """scale · images + shift, a channel each, in one pass: batch normalisation by mean 0 and variance 1."""
        constants = self._constants.get((len(scale), scale.dtype))
        if constants is None:
            # eps must be positive (PyTorch 2.11); a power of two adds up to a variance of exactly 1
            constants = torch.zeros_like(scale), torch.full_like(scale, 1 - UNIT_EPS)
            self._constants[len(scale), scale.dtype] = constants
        return F.batch_norm(images, *constants, scale, shift, eps=UNIT_EPS)

    def _layer_norm(self, function, input, normalized_shape, weight=None, bias=None, eps=1e-5):
        """d(w x̂ + b) = w x̂'(dx) + dw x̂ + db. The derivative x̂' is symmetric: the backward pass computes it."""
        x, dx = _unpack(input)
        if dx is None or weight is None or bias is None:
            return F.layer_norm(input, normalized_shape, weight, bias, eps)
        (w, dw), (b, db) = _unpack(weight), _unpack(bias)
        value, mean, inverse_deviation = torch.native_layer_norm(x, normalized_shape, w, b, eps)
        dx, x = dx.to(mean.dtype).contiguous(), x.to(mean.dtype)  # half precisions have float32 statistics
        tangent, _, _ = torch.ops.aten.native_layer_norm_backward(
            dx, x, normalized_shape, mean, inverse_deviation, None, None, [True, False, False]
        )
        tangent *= w
        if dw is not None:
            tangent += F.layer_norm(x, normalized_shape, dw, db, eps)
        elif db is not None:
            tangent += db
        return _make_dual(value, tangent.to(value.dtype))

    def _attention(
        self, function, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, **more
    ):
        """With P = softmax(q kᵀ): dP = P ∘ (dS − rowsum(P ∘ dS)), dS = dq kᵀ + q dkᵀ, and d(P v) = dP v + P dv."""
        kept, _ = self._replay.next(F.scaled_dot_product_attention)
        (q, dq), (k, dk), (v, dv) = (_unpack(tensor) for tensor in (query, key, value))
        if (
            any(tangent is None for tangent in (dq, dk, dv))
            or attn_mask is not None
            or dropout_p
            or is_causal
            or any(more.values())
        ):
            return F.scaled_dot_product_attention(
                query, key, value, attn_mask, dropout_p, is_causal, scale=scale, **more
            )
        q, dq = (tensor * (q.shape[-1] ** -0.5 if scale is None else scale) for tensor in (q, dq))
        probabilities = (q @ k.mT).softmax(-1)
        change = torch.cat([dq, q], -1) @ torch.cat([k, dk], -1).mT
        # autocast on a GPU takes the softmax, and it alone, in float32
        change = torch._softmax_backward_data(change.to(probabilities.dtype), probabilities, -1, probabilities.dtype)
        tangent = torch.cat([change, probabilities], -1) @ torch.cat([v, dv], -2)
        return _make_dual(probabilities @ v if kept is None else kept, tangent)

    RULES: ClassVar = {
        **dict.fromkeys(PRODUCTS, _product),
        **dict.fromkeys(CLAMPS, _clamp),
        ADD_IN_PLACE: _add_in_place,
        F.gelu: _gelu,
        F.batch_norm: _batch_norm,
        F.layer_norm: _layer_norm,
        F.scaled_dot_product_attention: _attention,
    }


def _batch_statistics(images: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return torch.native_batch_norm(images, None, None, None, None, True, 0.0, eps)[1:]
