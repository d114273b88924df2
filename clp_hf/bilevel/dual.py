"""A forward pass with dual numbers, `J · direction`, which takes what the training pass computed from where it lies.

PyTorch's forward mode evaluates every operator and its derivative: three convolutions where a backward pass has two,
and some twenty passes over memory for one normalisation. But the values are those of the training pass, whose
graph still holds most of them. `Recording` notes where; the rules below take them from there and compute tangents only.
"""

import warnings
from collections import defaultdict
from contextlib import AbstractContextManager, contextmanager
from functools import cache

import torch
import torch.autograd.forward_ad as forward_ad
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils.weak import TensorWeakRef

from .functional import RandomState

# Up to PyTorch 2.11 activation checkpointing marks its inputs even where no gradient is taken, by a function (whose
# output is empty) without forward derivative.
if hasattr(torch.utils.checkpoint, "_NoopSaveInputs"):
    torch.utils.checkpoint._NoopSaveInputs.jvp = staticmethod(lambda context, empty, *others: empty)

PRODUCTS = (F.linear, F.conv1d, F.conv2d, F.conv3d)
UNIT_EPS = 2.0**-10
ATTENTION = "attention"  # has no weight by whose address it could be known: all calls are one sequence


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


class Recording(TorchFunctionMode):
    """A context around a forward pass: what the same pass with dual numbers, later, need not draw or compute again.

    It keeps no activation alive: it refers weakly to those that autograd keeps for the backward pass. What has been
    freed (activation checkpointing, a released graph) or overwritten (in-place activations) is computed again.

    Attributes:
        random_state: the random state from just before the pass.
    """

    def __init__(self, device: torch.device | str = "cpu"):
        super().__init__()
        self.random_state = RandomState(device)
        self._calls = defaultdict(list)  # by the weight's address (or `ATTENTION`), in the order of the calls

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        output = function(*args, **kwargs)
        if function in PRODUCTS:
            weight = args[1] if len(args) > 1 else kwargs["weight"]
            self._calls[weight.data_ptr()].append((weight, _Kept(output)))
        elif function is F.batch_norm:
            weight = kwargs.get("weight", args[3] if len(args) > 3 else None)
            if weight is not None:
                self._calls[weight.data_ptr()].append((weight, (_Kept(output), _saved_statistics(output))))
        elif function is F.scaled_dot_product_attention:
            self._calls[ATTENTION].append((None, _Kept(output)))
        return output

    @contextmanager
    def replayed(self):
        """Inside, the recorded pass, run with dual numbers, draws the same masks and computes tangents only."""
        with self.random_state.replayed(), dual_attention(), _TangentRules(_Replay(self._calls)):
            yield


class _Kept:
    """A tensor, as long as autograd keeps it and nothing writes to it."""

    def __init__(self, tensor: Tensor):
        # A view (attention's queries, keys and values are views of one product) lives as long as its base.
        self._base = TensorWeakRef(tensor if tensor._base is None else tensor._base)
        self._geometry = tensor.size(), tensor.stride(), tensor.storage_offset()
        self._version = tensor._version

    def __call__(self) -> Tensor | None:
        base = self._base()
        if base is None or base._version != self._version:
            return None
        return base.detach().as_strided(*self._geometry)


class _Replay:
    """The same calls once more, in the same order: gives what each of them left."""

    def __init__(self, calls: dict):
        self._remaining = {key: iter(own) for key, own in calls.items()}

    def recall(self, key: int | str):
        """The value of this call, or None; of a normalisation with the statistics that it saved, or None."""
        _, kept = next(self._remaining.get(key, iter(())), (None, None))
        if isinstance(kept, tuple):
            value, statistics = kept
            return value(), statistics
        return kept and kept()


class _TangentRules(TorchFunctionMode):
    """Own forward derivatives of products, convolutions, normalisation and attention; PyTorch's of all else."""

    def __init__(self, replay: _Replay):
        super().__init__()
        self._replay = replay

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in PRODUCTS:
            return self._product(function, *args, **kwargs)
        if function is F.batch_norm:
            return self._batch_norm(*args, **kwargs)
        if function is F.layer_norm:
            return self._layer_norm(*args, **kwargs)
        if function is F.scaled_dot_product_attention:
            return self._attention(*args, **kwargs)
        return function(*args, **kwargs)

    def _product(self, function, input, weight, bias=None, *args, **kwargs):
        """Bilinear: d(x ∗ w + b) = dx ∗ w + x ∗ dw + db."""
        (x, dx), (w, dw) = forward_ad.unpack_dual(input), forward_ad.unpack_dual(weight)
        b, db = (None, None) if bias is None else forward_ad.unpack_dual(bias)
        value = self._replay.recall(w.data_ptr())
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
        return forward_ad.make_dual(value, tangent)

    def _batch_norm(
        self, input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5
    ):
        """With x̂ = (x − μ) r: d(w x̂ + b) = w r (dx − [mean(dx) + x̂ mean(x̂ dx)]) + dw x̂ + db; [·] in training only.

        Written as scale · dx + slope · x + shift, whose coefficients are as small as a channel is, this takes few
        passes over the images. The means are the gradients of weight and bias for an output gradient of dx, which the
        backward pass has in one pass.
        """
        x, dx = forward_ad.unpack_dual(input)
        kept = None if weight is None else self._replay.recall(forward_ad.unpack_dual(weight).primal.data_ptr())
        value, saved = kept or (None, None)
        use_batch = training or running_mean is None
        if dx is None or weight is None or bias is None:
            return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
        (w, dw), (b, db) = forward_ad.unpack_dual(weight), forward_ad.unpack_dual(bias)
        if not use_batch:
            mean, inverse_deviation = running_mean, (running_var + eps).rsqrt()
        else:
            mean, inverse_deviation = saved or _batch_statistics(x, eps)
        scale = w * inverse_deviation
        slope = torch.zeros_like(scale) if dw is None else dw * inverse_deviation
        shift = torch.zeros_like(scale) if db is None else db
        if use_batch:
            count = x.numel() / x.shape[1]
            _, weight_gradient, bias_gradient = torch.ops.aten.native_batch_norm_backward(
                dx, x, w, None, None, mean, inverse_deviation, True, eps, [False, True, True]
            )
            slope = slope - scale * inverse_deviation * weight_gradient / count
            shift = shift - scale * bias_gradient / count
        tangent = _affine(dx, scale, shift - slope * mean).addcmul_(x, _by_channel(slope, x))
        return forward_ad.make_dual(_affine(x, scale, b - scale * mean) if value is None else value, tangent)

    def _layer_norm(self, input, normalized_shape, weight=None, bias=None, eps=1e-5):
        """d(w x̂ + b) = w x̂'(dx) + dw x̂ + db. The derivative x̂' is symmetric: the backward pass computes it."""
        x, dx = forward_ad.unpack_dual(input)
        if dx is None or weight is None or bias is None:
            return F.layer_norm(input, normalized_shape, weight, bias, eps)
        (w, dw), (b, db) = forward_ad.unpack_dual(weight), forward_ad.unpack_dual(bias)
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
        return forward_ad.make_dual(value, tangent.to(value.dtype))

    def _attention(self, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, **more):
        """With P = softmax(q kᵀ): dP = P ∘ (dS − rowsum(P ∘ dS)), dS = dq kᵀ + q dkᵀ, and d(P v) = dP v + P dv."""
        kept = self._replay.recall(ATTENTION)
        (q, dq), (k, dk), (v, dv) = (forward_ad.unpack_dual(tensor) for tensor in (query, key, value))
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
        return forward_ad.make_dual(probabilities @ v if kept is None else kept, tangent)


def _saved_statistics(output: Tensor) -> tuple[Tensor, Tensor] | None:
    """Mean and inverse standard deviation of each channel, (C,), as batch normalisation saved them for its backward."""
    saved = [getattr(output.grad_fn, f"_raw_saved_result{number}", None) for number in (1, 2)]
    # With a hook (activation checkpointing) they are not there, and asking for them would run the block again.
    if any(tensor is None or getattr(tensor, "unpack_hook", True) is not None for tensor in saved):
        return None
    return output.grad_fn._saved_result1.detach(), output.grad_fn._saved_result2.detach()


def _batch_statistics(images: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return torch.native_batch_norm(images, None, None, None, None, True, 0.0, eps)[1:]


def _by_channel(values: Tensor, images: Tensor) -> Tensor:
    """(C,) as (1, C, 1, …), to go with `images`."""
    return values.view(1, -1, *[1] * (images.dim() - 2))


def _affine(images: Tensor, scale: Tensor, shift: Tensor | None = None) -> Tensor:
    """scale · images + shift, a channel each, in one pass: batch normalisation by mean 0 and variance 1."""
    # eps must be positive (PyTorch 2.11); a power of two adds up to a variance of exactly 1
    variance = torch.full_like(scale, 1 - UNIT_EPS)
    return F.batch_norm(images, torch.zeros_like(scale), variance, scale, shift, eps=UNIT_EPS)
