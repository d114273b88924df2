"""The gradient of the meta loss, one look-ahead step later, in the hyper-parameters Ω (CLP, Eq. 8 and 9).

Ω reaches the training loss only through the logits U = U(W), so the hypergradient

    dL_meta/dΩ = ∂L_meta/∂Ω − ∂/∂Ω ⟨ J (s ∘ v), q(Ω) ⟩,      v = ∇_Ŵ L_meta(Ŵ),  J = ∂U/∂W,  q = ∂L_train/∂U

needs no second-order backward pass: `J (s ∘ v)` is one forward pass with dual numbers, and the rest is a backward pass
through Ω's own small network. This is exact for any module and any training loss that sees Ω through the logits.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from .distributed import all_reduce_mean
from .engines import ENGINES, TrainingPass
from .functional import run_at


@dataclass(frozen=True)
class Hypergradient:
    """dL_meta/dΩ and what it is made of.

    Attributes:
        total: the gradient for each tensor of Ω.
        direct: ∂L_meta/∂Ω at fixed Ŵ; zero unless the meta loss itself sees Ω.
        indirect: the part that came through the look-ahead; `total = direct + indirect`.
        outer_loss: L_meta(Ŵ), a detached scalar, the mean over processes.
        logit_tangent: J (s ∘ v), (n, C): how the training logits would move along s ∘ v. None from `double_backward`.
    """

    total: list[Tensor]
    direct: list[Tensor]
    indirect: list[Tensor]
    outer_loss: Tensor
    logit_tangent: Tensor | None


def hypergradient(
    module: nn.Module,
    training_pass: TrainingPass,
    inner_loss: Callable[[Tensor], Tensor],
    outer_loss: Callable[[], Tensor],
    hyperparameters: Sequence[Tensor],
    step: float | Callable[[Mapping[str, Tensor]], Mapping[str, Tensor | float]],
    engine: str = "forward",
    keep_graph: bool = True,
    loss_scale: float = 1.0,
    gradients: Mapping[str, Tensor] | None = None,
) -> Hypergradient:
    """The gradient in Ω of `outer_loss` at Ŵ(Ω) = W − s ∘ ∇_W [inner_loss(U, Ω) + penalty].

    All parameters of `module` that require a gradient look ahead. To let only the head look ahead, pass the head as
    `module` and a `forward` that applies it to cached features. The module is never written to.

    Args:
        module: holds W.
        training_pass: the forward pass of the training batch through `module`.
        inner_loss: the training loss, a scalar, from logits (n, C). It sees Ω.
        outer_loss: the meta loss, a scalar; called while `module` holds Ŵ. May also see Ω directly.
        hyperparameters: the tensors Ω; they require a gradient.
        step: the step size s: one number, or a function from the gradients by parameter name to the factors by
            parameter name (`step_sizes`).
        engine: `"forward"`, exact, one dual-number pass; `"finite_difference"`, one plain forward pass at a nearby
            point, for modules with operators that lack a forward derivative; `"double_backward"`, the textbook
            second-order backward pass, exact, slow, and impossible for some operators (the attention kernels: compute
            `training_pass` under `dual_attention()`).
        keep_graph: whether the graph of `training_pass.logits` is used again, for the final backward pass.
        loss_scale: losses are multiplied by it for their backward passes, and what comes of them is divided by it: in
            float16 small gradients and tangents would be lost. A power of two, as of `torch.amp.GradScaler`.
        gradients: ∇_W of the training loss by parameter name, times `loss_scale` and averaged over processes, where it
            has been taken already: a backward pass less. The graph of `training_pass.logits` may be gone then, but
            what it still holds need not be computed again. Only `"double_backward"` takes its own beside it.

    Returns:
        The hypergradient, averaged over processes where there are several.

    Raises:
        ValueError: for an unknown engine.
        NotImplementedError: `module` has an operator without forward derivative; `"finite_difference"` works.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine is {engine!r}; choose one of {', '.join(ENGINES)}.")
    tangent_of = ENGINES[engine]
    second_order = tangent_of is None
    parameters = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    hyperparameters = list(hyperparameters)

    graph: tuple[Tensor, ...] = ()  # the gradients with theirs
    if second_order or gradients is None:
        loss = inner_loss(training_pass.logits)
        if training_pass.penalty is not None:
            loss = loss + training_pass.penalty
        graph = torch.autograd.grad(
            loss * loss_scale,
            list(parameters.values()),
            retain_graph=keep_graph or second_order,
            create_graph=second_order,
            materialize_grads=True,
        )
    if gradients is None:
        gradients = dict(zip(parameters, all_reduce_mean([gradient.detach() for gradient in graph]), strict=True))
    if not second_order:
        graph = ()
    gradients = {name: gradients[name] for name in parameters}
    if loss_scale != 1:
        gradients = dict(zip(parameters, torch._foreach_div(list(gradients.values()), loss_scale), strict=True))
    sizes = step(gradients) if callable(step) else dict.fromkeys(parameters, step)
    sizes = [sizes[name] for name in parameters]
    moved = _scaled(list(gradients.values()), sizes)
    gradients.clear()  # a copy of the network that need not live through the meta pass
    moved = torch._foreach_sub([parameter.detach() for parameter in parameters.values()], moved)
    lookahead = {name: weight.requires_grad_() for name, weight in zip(parameters, moved, strict=True)}
    del moved

    outer, outer_grads = run_at(
        module, lookahead, partial(_gradients_of, outer_loss, [*lookahead.values(), *hyperparameters], loss_scale)
    )
    lookahead.clear()
    outer, *outer_grads = all_reduce_mean([outer, *outer_grads])
    direct = [gradient / loss_scale for gradient in outer_grads[len(parameters) :]]
    direction = dict(zip(parameters, _scaled(outer_grads[: len(parameters)], sizes), strict=True))
    del outer_grads

    if second_order:
        tangent = None
        indirect = torch.autograd.grad(
            graph,
            hyperparameters,
            grad_outputs=[-direction[name] / loss_scale**2 for name in parameters],
            retain_graph=keep_graph,
            materialize_grads=True,
        )
    else:
        tangent = tangent_of(module, training_pass, parameters, direction) / loss_scale
        logits = training_pass.logits.detach().requires_grad_()
        (q,) = torch.autograd.grad(inner_loss(logits), logits, create_graph=True)
        indirect = torch.autograd.grad(-(tangent.to(q.dtype) * q).sum(), hyperparameters, materialize_grads=True)
    indirect = all_reduce_mean(indirect)
    total = [a + b for a, b in zip(direct, indirect, strict=True)]
    return Hypergradient(total, list(direct), list(indirect), outer, tangent)


def derivative_in_output(
    inner_loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, output: Tensor, tangent: Tensor
) -> Tensor:
    """n times that of the meta loss in what Ω gives each of n samples, through the look-ahead.

    Args:
        inner_loss: the training loss, from logits (n, C) and this output.
        logits: of the training pass.
        output: of Ω, (n, …).
        tangent: `Hypergradient.logit_tangent`.
    """
    logits, output = logits.detach().requires_grad_(), output.detach().requires_grad_()
    (q,) = torch.autograd.grad(inner_loss(logits, output), logits, create_graph=True)
    return -len(logits) * torch.autograd.grad((tangent.to(q.dtype) * q).sum(), output)[0]


def _scaled(tensors: list[Tensor], factors: list[Tensor | float]) -> list[Tensor]:
    """Each by its factor: on a GPU a few kernels, and not one a tensor."""
    if all(factor is factors[0] for factor in factors):
        return list(torch._foreach_mul(tensors, factors[0]))
    if len({type(factor) for factor in factors}) == 1:
        return list(torch._foreach_mul(tensors, factors))
    return [tensor * factor for tensor, factor in zip(tensors, factors, strict=True)]


def _gradients_of(
    function: Callable[[], Tensor], tensors: list[Tensor], scale: float
) -> tuple[Tensor, tuple[Tensor, ...]]:
    value = function()
    return value.detach(), torch.autograd.grad(value * scale, tensors, materialize_grads=True)
