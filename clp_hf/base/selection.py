"""What checkpoints are selected by has to be something that evaluations give."""

from collections.abc import Iterable

from transformers import Trainer

from ..metrics import GroupMetrics
from ..utils.names import did_you_mean


def check_selection(trainer: Trainer) -> None:
    """Refuse, before training, what would fail at its first evaluation.

    Raises:
        ValueError: `metric_for_best_model` is none of the metrics of `compute_metrics`, where these are known. The
            message names them.
    """
    args, compute = trainer.args, trainer.compute_metrics
    if args.metric_for_best_model is None or args.eval_strategy == "no":
        return
    only_loss = compute is None or args.prediction_loss_only
    if not only_loss and type(compute) is not GroupMetrics:
        return  # of somebody else, who alone knows their names
    sets = trainer.eval_dataset if isinstance(trainer.eval_dataset, dict) else [None]
    names = ["loss", *([] if only_loss else compute.names)]
    starts = ["eval_" if name is None else f"eval_{name}_" for name in sets]
    check_metric(args.metric_for_best_model, [start + name for start in starts for name in names])


def check_metric(metric: str | None, given: Iterable[str]) -> None:
    """Refuse to select checkpoints by a metric that is not among those that an evaluation gives.

    Raises:
        ValueError: it is not; the message names those that are.
    """
    if metric is None or f"eval_{metric.removeprefix('eval_')}" in given:
        return
    names = [name.removeprefix("eval_") for name in given]
    told = [name for name in names if not name.endswith(("runtime", "_per_second", "epoch", "_preparation_time"))]
    raise ValueError(
        f"metric_for_best_model is {metric!r}, which no evaluation gives; choose one of {', '.join(told[:40])}"
        f"{' …' if len(told) > 40 else ''}.{did_you_mean(metric.removeprefix('eval_'), told)}"
    )
