"""Where a trained classifier looks: shares of its Grad-CAM inside the masks, and a picture beside the model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import Trainer

from ..data.dataset import ImageClassificationDataset
from ..hub.record import GRAD_CAM_FILE

MOST_ROWS = 6  # of the picture that is saved


def attribution_of(
    trainer: Trainer, dataset: ImageClassificationDataset, prefix: str, group_names: Sequence[str] | None
) -> dict[str, float]:
    """The metrics of `attribution_metrics`, with the prefix of an evaluation; the trainer's log gets them too."""
    from ..visualization.grad_cam import attribution_metrics

    model, batch_size = trainer.accelerator.unwrap_model(trainer.model), trainer.args.eval_batch_size
    found = attribution_metrics(model, dataset, group_names=group_names, batch_size=batch_size)
    found = {f"{prefix}_{name}": value for name, value in found.items()}
    trainer.state.log_history[-1].update(found)  # the entry of the evaluation before: the card is made of it
    return found


def save_grad_cam(trainer: Trainer, dataset: ImageClassificationDataset, label_names: Sequence[str]) -> None:
    """A small picture beside the model: where it looks on the first image of every group or class."""
    from ..visualization.grad_cam import grad_cam_figure

    cells = (dataset.labels if dataset.group is None else dataset.group).tolist()
    first = [cells.index(cell) for cell in sorted(set(cells))][:MOST_ROWS]
    model = trainer.accelerator.unwrap_model(trainer.model)
    figure = grad_cam_figure({"predicted": model}, dataset, first, label_names)
    path = Path(trainer.args.output_dir) / GRAD_CAM_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100, metadata={"Software": None})
