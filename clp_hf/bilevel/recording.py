"""What a forward pass leaves to the same pass with dual numbers, later: its random state, and where its values lie."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar
from weakref import ReferenceType, ref

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import TensorWeakRef

from .functional import RandomState

PRODUCTS = (F.linear, F.conv1d, F.conv2d, F.conv3d)
# Their derivative is 0 where their own result lies at a bound, and 1 between: (lower, upper) from the arguments.
CLAMPS = {
    F.relu: lambda: (0.0, torch.inf),
    F.relu6: lambda: (0.0, 6.0),
    F.hardtanh: lambda min_val=-1.0, max_val=1.0: (min_val, max_val),
}
ADD_IN_PLACE = Tensor.add_


@dataclass
class Call:
    """What a call left.

    Attributes:
        value: its output.
        statistics: mean and inverse standard deviation of each channel, (C,), of a batch normalisation that saved them.
        sum: that of the output and another tensor, and this other tensor: their difference is the output.
        clamped: whether `value` is what an activation in place made of the output, and of what was added to it.
    """

    value: "Kept"
    statistics: tuple[Tensor, Tensor] | None = None
    sum: "tuple[Kept, Kept] | None" = None
    clamped: bool = False


class Recording(TorchFunctionMode):
    """A context around a forward pass: what the same pass with dual numbers, later, need not draw or compute again.

    It keeps no activation alive: it refers weakly to those that autograd keeps for the backward pass. What has been
    freed (activation checkpointing, a released graph) or overwritten (in-place activations) is computed again, but:

    - a product to which the residual stream is added is not kept by autograd, and the two sums are: it is their
      difference;
    - what a batch normalisation gave, overwritten by the activation that follows, is not needed: the derivative of the
      activation is in its result. Nothing else may have read it before: this is what `_follow` watches.

    Attributes:
        random_state: the random state from just before the pass.
    """

    def __init__(self, device: torch.device | str = "cpu"):
        super().__init__()
        self.random_state = RandomState(device)
        # In their order, by the address of the weight; where there is none, all calls of a function.
        self._calls: dict[Any, list[Call]] = defaultdict(list)
        self._weights: list[Tensor] = []  # alive, so that their addresses are theirs
        self._product: tuple[ReferenceType, Call] | None = None  # the last one
        self._unread: dict[int, tuple[ReferenceType, Call]] = {}  # normalised images, by identity

    def replay(self) -> "Replay":
        """The same calls once more, in the same order."""
        return Replay(self._calls)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        output = function(*args, **kwargs)
        if self._unread:
            self._follow(function, args, kwargs, output)
        note = self.NOTED.get(function)
        if note is not None:
            note(self, function, output, *args, **kwargs)
        return output

    def _note(self, weight: Tensor, call: Call) -> Call:
        self._weights.append(weight)
        self._calls[weight.data_ptr()].append(call)
        return call

    def _note_unweighted(self, function, output: Tensor, *args, **kwargs) -> None:
        self._calls[function].append(Call(Kept(output)))

    def _note_product(self, function, output: Tensor, input, weight, *args, **kwargs) -> None:
        self._product = ref(output), self._note(weight, Call(Kept(output)))

    def _note_sum(self, function, total: Tensor, *terms, **kwargs) -> None:
        if self._product is None or kwargs or len(terms) != 2:
            return
        product, call = self._product
        for term, other in (terms, terms[::-1]):
            if term is product() and isinstance(other, Tensor) and term.shape == other.shape:
                call.sum = Kept(total), Kept(other)

    def _note_normalisation(
        self, function, output: Tensor, input, running_mean, running_var, weight=None, *args, **kwargs
    ) -> None:
        if weight is not None:
            call = self._note(weight, Call(Kept(output), _saved_statistics(output)))
            self._unread[id(output)] = ref(output), call

    NOTED: ClassVar = {
        **dict.fromkeys((torch.add, Tensor.add), _note_sum),
        **dict.fromkeys((F.scaled_dot_product_attention, F.gelu, *CLAMPS), _note_unweighted),
        **dict.fromkeys(PRODUCTS, _note_product),
        F.batch_norm: _note_normalisation,
    }

    def _follow(self, function, args, kwargs, output) -> None:
        """Whether what reads normalised images is an addition to them in place, or an activation in place after it."""
        for tensor in _tensors(args, kwargs):
            image, call = self._unread.get(id(tensor), (None, None))
            if image is None or image() is not tensor:
                continue
            if args and args[0] is tensor and output is tensor:
                if function is ADD_IN_PLACE and not kwargs and isinstance(args[1], Tensor) and args[1] is not tensor:
                    continue
                if function in CLAMPS:
                    call.value, call.clamped = Kept(output), True
            del self._unread[id(tensor)]


class Kept:
    """A tensor, as long as autograd keeps it and nothing writes to it."""

    def __init__(self, tensor: Tensor):
        # A view (attention's queries, keys and values are views of one product) lives as long as its base.
        self._base = TensorWeakRef(tensor if tensor._base is None else tensor._base)
        self._geometry = tensor.size(), tensor.stride(), tensor.storage_offset()
        self._version, self.dtype = tensor._version, tensor.dtype

    def __call__(self) -> Tensor | None:
        """The tensor, or None."""
        base = self._base()
        if base is None or base._version != self._version:
            return None
        return base.detach().as_strided(*self._geometry)


class Replay:
    """The recorded calls once more: gives what each of them left."""

    def __init__(self, calls: Mapping):
        self._remaining = {key: iter(own) for key, own in calls.items()}

    def next(self, key: Any) -> tuple[Tensor | None, Call | None]:
        """The value of the next call of this weight's address or this function, or None; and the call."""
        call = next(self._remaining.get(key, iter(())), None)
        if call is None:
            return None, None
        value = call.value()
        if value is None and call.sum is not None:
            total, other = (part() for part in call.sum)
            if total is not None and other is not None:
                value = (total - other).to(call.value.dtype)
        return value, call


def _saved_statistics(output: Tensor) -> tuple[Tensor, Tensor] | None:
    """Mean and inverse standard deviation of each channel, (C,), as batch normalisation saved them for its backward."""
    saved = getattr(output.grad_fn, "_raw_saved_result1", None)
    # With a hook (activation checkpointing) they are not there, and asking for them would run the block again.
    if saved is None or getattr(saved, "unpack_hook", True) is not None:
        return None
    return output.grad_fn._saved_result1, output.grad_fn._saved_result2


def _tensors(args: Sequence, kwargs: Mapping) -> Iterator[Tensor]:
    for argument in (*args, *kwargs.values()):
        if isinstance(argument, Tensor):
            yield argument
        elif isinstance(argument, (tuple, list)):
            yield from _tensors(argument, {})
