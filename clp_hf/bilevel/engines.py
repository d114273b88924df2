"""The engines of the hypergradient: ways to the tangent J · direction of the training logits, J = ∂U/∂W.

An engine is a function here, and a line in `ENGINES`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor, nn

from .dual import load_rules, replayed
from .functional import run_at
from .recording import Recording

DIFFERENCE_SCALE = 3e-3

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class TrainingPass:
    """The training forward pass, whose graph the look-ahead shares and whose random masks the dual pass replays.

    Attributes:
        forward: runs the module on the training batch, as it is at that moment, and returns logits (n, C).
        logits: what it returned, with its graph.
        recording: what was recorded of that pass: its random state, and the values that need not be computed twice.
        penalty: the part of the training loss that Ω does not reach (the saliency of Eq. 6), with its graph, or None.
    """

    forward: Callable[[], Tensor]
    logits: Tensor
    recording: Recording
    penalty: Tensor | None = None

    @classmethod
    def run(
        cls, forward: Callable[[], Tensor], device: torch.device | str = "cpu", penalty: Tensor | None = None
    ) -> "TrainingPass":
        """Run `forward` once and record it."""
        with Recording(device) as recording:
            logits = forward()
        return cls(forward, logits, recording, penalty)


@torch.no_grad()
def dual_tangent(module: nn.Module, training_pass: TrainingPass, parameters: Tensors, direction: Tensors) -> Tensor:
    """`J · direction`, exactly, from one forward pass with dual numbers.

    Raises:
        NotImplementedError: `module` has an operator without forward derivative.
    """

    def forward() -> Tensor:
        with replayed(training_pass.recording):  # what is made ready for it is none of its calls
            return training_pass.forward()

    load_rules()
    with forward_ad.dual_level():
        duals = {
            name: forward_ad.make_dual(parameter.detach(), direction[name]) for name, parameter in parameters.items()
        }
        try:
            primal, tangent = forward_ad.unpack_dual(run_at(module, duals, forward))
        except NotImplementedError as error:
            raise NotImplementedError(
                "PyTorch has no forward derivative for an operator of this model; choose the finite_difference engine, "
                f"which works with all. ({str(error).splitlines()[0]})"
            ) from error
    return torch.zeros_like(primal) if tangent is None else tangent


@torch.no_grad()
def difference_tangent(
    module: nn.Module, training_pass: TrainingPass, parameters: Tensors, direction: Tensors
) -> Tensor:
    """`J · direction` as (U(W + ε direction) − U(W)) / ε, the second term being known already.

    ε moves the weights by c √(machine epsilon) of their norm: the square root balances the rounding error of the
    difference (∝ machine epsilon / ε) against its truncation error (∝ ε), and c = 0.003 is the compromise measured in
    float32 over ResNet, ViT and EfficientNet, whose curvatures differ a thousandfold.
    """
    norm = torch.nn.utils.get_total_norm(direction.values())
    if norm == 0:
        return torch.zeros_like(training_pass.logits)
    precision = torch.finfo(training_pass.logits.dtype).eps
    epsilon = (
        DIFFERENCE_SCALE * math.sqrt(precision) * torch.nn.utils.get_total_norm(parameters.values()).detach() / norm
    )
    shifted = {name: parameter.detach() + epsilon * direction[name] for name, parameter in parameters.items()}
    with training_pass.recording.random_state.replayed():
        return (run_at(module, shifted, training_pass.forward) - training_pass.logits.detach()) / epsilon


# (module, its training pass, its parameters, a direction in them) -> J · direction, (n, C)
ENGINES: dict[str, Callable[[nn.Module, TrainingPass, Tensors, Tensors], Tensor] | None] = {
    "forward": dual_tangent,
    "finite_difference": difference_tangent,
    "double_backward": None,  # takes no tangent: `hypergradient` keeps the graph of the look-ahead for it
}
