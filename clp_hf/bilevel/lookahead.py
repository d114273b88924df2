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
    return {
        name: clip * _effective_step(groups[id(parameter)], optimizer.state.get(parameter, {}), gradients[name])
        for name, parameter in parameters.items()
    }


def _clip_factor(gradients: Mapping[str, Tensor], max_grad_norm: float) -> Tensor | float:
    if not max_grad_norm:
        return 1.0
    return (max_grad_norm / (torch.nn.utils.get_total_norm(gradients.values()) + 1e-6)).clamp(max=1.0)


def _effective_step(group: dict, state: dict, gradient: Tensor) -> Tensor | float:
    learning_rate = group["lr"]
    if "betas" in group and "eps" in group:
        beta2, steps = group["betas"][1], float(state.get("step", 0)) + 1
        second_moment = (1 - beta2) * gradient.square()
        if "exp_avg_sq" in state:
            second_moment += beta2 * whole(state["exp_avg_sq"])
        return learning_rate / ((second_moment / (1 - beta2**steps)).sqrt() + group["eps"])
    if "momentum" in group:
        return learning_rate * (1 - group.get("dampening", 0.0)) / (1 - group["momentum"])
    warnings.warn("lookahead='match' knows SGD and the Adam family; for this optimizer it steps with lr.", stacklevel=4)
    return learning_rate
