"""The look-ahead Ŵ(Ω) = W − s ∘ ∇_W L_train (CLP, Eq. 8): how far one training step moves every weight."""

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor

from .sharded import whole

STEPS = ("match", "sgd")
LOOKAHEADS = (*STEPS, "converged")  # the last takes no step: `converged.ConvergedHead`


def step_sizes(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor],
    lookahead: str = "match",
    max_grad_norm: float = 0.0,
) -> dict[str, Tensor | float]:
    """The factor s of every parameter by which the look-ahead multiplies its gradient.

    `"sgd"` is the paper's plain step: the learning rate. `"match"` is the displacement that this gradient will really
    cause under the user's optimizer, summed over the later steps in which momentum still carries it:

    - momentum μ (SGD): `lr (1 − dampening) / (1 − μ)`;
    - second moments (the Adam family): `lr / (√v̂ + ε)`, v̂ with the present gradient in it, as the step itself has;
    - gradient clipping scales all of them alike.

    The factor is held constant when the look-ahead is differentiated.

    Args:
        optimizer: the optimizer of the parameters, or accelerate's wrapper of it.
        parameters: the parameters that look ahead, by name, as the optimizer has them: FSDP2's are parts.
        gradients: the gradient of the training loss for each of them, whole.
        lookahead: `"match"` or `"sgd"`.
        max_grad_norm: the norm to which gradients will be clipped; 0 means they are not clipped.

    Returns:
        A number, or a tensor of the parameter's shape, for each name.

    Raises:
        ValueError: when `lookahead` is unknown, or a parameter is not in the optimizer.
    """
    if lookahead not in STEPS:
        raise ValueError(f"lookahead is {lookahead!r}; choose one of {', '.join(STEPS)}.")
    groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    missing = [name for name, parameter in parameters.items() if id(parameter) not in groups]
    if missing:
        raise ValueError(f"{len(missing)} parameters look ahead but the optimizer does not train them: {missing[:3]}.")
    if lookahead == "sgd":
        return {name: float(groups[id(parameter)]["lr"]) for name, parameter in parameters.items()}
    clip = _clip_factor(gradients, max_grad_norm)
    sizes = {}
    for group in optimizer.param_groups:
        own = [name for name, parameter in parameters.items() if groups[id(parameter)] is group]
        if own:
            states = [optimizer.state.get(parameters[name], {}) for name in own]
            steps = _effective_steps(group, clip, states, [gradients[name] for name in own])
            sizes |= dict(zip(own, steps, strict=True))
    return sizes


def _clip_factor(gradients: Mapping[str, Tensor], max_grad_norm: float) -> Tensor | float:
    if not max_grad_norm:
        return 1.0
    return (max_grad_norm / (torch.nn.utils.get_total_norm(gradients.values()) + 1e-6)).clamp(max=1.0)


def _effective_steps(
    group: dict, clip: Tensor | float, states: list[dict], gradients: list[Tensor]
) -> list[Tensor | float]:
    """Of every parameter of a group; where they are all alike, one number in all places."""
    learning_rate = clip * group["lr"]
    if "betas" in group and "eps" in group:
        return _adaptive_steps(group, learning_rate, states, gradients)
    if "momentum" in group:
        learning_rate = learning_rate * (1 - group.get("dampening", 0.0)) / (1 - group["momentum"])
    else:
        warnings.warn(
            "lookahead='match' knows SGD and the Adam family; for this optimizer it steps with lr.", stacklevel=3
        )
    return [learning_rate] * len(gradients)


def _adaptive_steps(
    group: dict, learning_rate: Tensor | float, states: list[dict], gradients: list[Tensor]
) -> list[Tensor]:
    """lr / (√v̂ + ε), in a few kernels for all parameters."""
    beta2 = group["betas"][1]
    moments = list(torch._foreach_mul(gradients, gradients))
    torch._foreach_mul_(moments, 1 - beta2)
    begun = [number for number, state in enumerate(states) if "exp_avg_sq" in state]
    if begun:
        past = [whole(states[number]["exp_avg_sq"]) for number in begun]
        torch._foreach_add_([moments[number] for number in begun], past, alpha=beta2)
    torch._foreach_div_(moments, [1 - beta2 ** (count + 1) for count in _counts(states)])
    torch._foreach_sqrt_(moments)
    torch._foreach_add_(moments, group["eps"])
    torch._foreach_reciprocal_(moments)
    torch._foreach_mul_(moments, learning_rate)
    return moments


def _counts(states: list[dict]) -> list[float]:
    """The steps that were made with each parameter. Fused optimizers count on the device, which is asked once."""
    counts = [state.get("step", 0.0) for state in states]
    tensors = [count for count in counts if isinstance(count, Tensor)]
    found = iter(torch.stack(tensors).tolist() if tensors else ())
    return [next(found) if isinstance(count, Tensor) else float(count) for count in counts]
