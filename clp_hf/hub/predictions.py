"""`_predictions.parquet`, beside a trained model: what it says of every image of the split that its results are of."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from ..utils.files import write_whole

PREDICTIONS_FILE = "_predictions.parquet"  # names with a leading _ are not pushed to the Hub: images are the user's
LARGEST = np.finfo(np.float16).max


class Picture(NamedTuple):
    """An image as the model sees it, and the same under the Grad-CAM map of the predicted class; files of JPEG."""

    image: bytes
    grad_cam: bytes | None


@dataclass
class Predictions:
    """What a classifier says of the images of a split.

    Attributes:
        split: `"test"`, `"validation"`, of several evaluation sets its name.
        ids: (n,) text, each once: the same for the same image, in whatever run.
        names: (n,) text, what a person finds the image by: its file, or its number in the split.
        labels: (n,) integers in 0 ... C - 1.
        groups: (n,) integers from 0 on; None without groups.
        logits: (n, C) float16, from the largest of an image down.
        predicted: (n,) integers, the class of the largest logit as the model computed it.
        losses: (n,) float32, cross-entropy in nats.
        pictures: row -> picture, of a few images.
        lacks: what a report would have and these pictures have not, and why; None where they have all.
    """

    split: str
    ids: np.ndarray
    names: np.ndarray
    labels: np.ndarray
    groups: np.ndarray | None
    logits: np.ndarray
    predicted: np.ndarray
    losses: np.ndarray
    pictures: dict[int, Picture] = field(default_factory=dict)
    lacks: str | None = None

    @classmethod
    def of(
        cls, split: str, logits: np.ndarray, labels: np.ndarray, groups: np.ndarray | None, ids: Sequence[str], names
    ) -> Predictions:
        """Of logits (n, C) of any precision; the others as the attributes."""
        logits = np.asarray(logits, np.float32)
        shifted = logits - logits.max(1, keepdims=True)
        rows = np.arange(len(labels))
        losses = np.log(np.exp(shifted).sum(1)) - shifted[rows, labels]
        return cls(
            split=split,
            ids=np.asarray(ids),
            names=np.asarray(names),
            labels=np.asarray(labels),
            groups=None if groups is None else np.asarray(groups),
            logits=shifted.clip(-LARGEST).astype(np.float16),
            predicted=logits.argmax(1),
            losses=losses.astype(np.float32),
        )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def correct(self) -> np.ndarray:
        """(n,) bool."""
        return self.predicted == self.labels

    @property
    def confidence(self) -> np.ndarray:
        """(n,) probability of the predicted class, by the logits as they are kept."""
        return 1 / np.exp(self.logits.astype(np.float32)).sum(1)

    def save(self, folder: str | os.PathLike) -> None:
        """Write the file into a folder, whole or not at all."""
        table = pa.table(
            {
                "id": pa.array(self.ids.tolist(), pa.string()),
                "image": pa.array(self.names.tolist(), pa.string()),
                "label": pa.array(self.labels, pa.int32()),
                "group": pa.nulls(len(self), pa.int32()) if self.groups is None else pa.array(self.groups, pa.int32()),
                "predicted": pa.array(self.predicted, pa.int32()),
                "loss": pa.array(self.losses, pa.float32()),
                "logits": pa.FixedSizeListArray.from_arrays(pa.array(self.logits.ravel()), self.logits.shape[1]),
                **{
                    name: pa.array([getattr(self.pictures.get(row), of, None) for row in range(len(self))], pa.binary())
                    for name, of in (("picture", "image"), ("grad_cam", "grad_cam"))
                },
            }
        )
        told = json.dumps({"split": self.split, "lacks": self.lacks})
        with write_whole(Path(folder) / PREDICTIONS_FILE) as path:
            parquet.write_table(table.replace_schema_metadata({"clp_hf": told}), path, compression="zstd")

    @classmethod
    def load(cls, folder: str | os.PathLike, num_labels: int, num_groups: int | None) -> Predictions:
        """Read the file of a folder.

        Args:
            folder: of a run.
            num_labels, num_groups: of the run; None without groups.

        Raises:
            ValueError: it is not what `save` writes, or of other classes or groups; the message names the file.
        """
        path = Path(folder) / PREDICTIONS_FILE
        try:
            table = parquet.read_table(path)
            told = json.loads(table.schema.metadata[b"clp_hf"])
            columns = {name: table[name].combine_chunks() for name in table.column_names}
            groups = None if columns["group"].null_count else columns["group"].to_numpy()
            pictures = zip(columns["picture"].to_pylist(), columns["grad_cam"].to_pylist(), strict=True)
            logits = columns["logits"]
            found = cls(
                split=str(told["split"]),
                ids=np.asarray(columns["id"].to_pylist(), str),
                names=np.asarray(columns["image"].to_pylist(), str),
                labels=columns["label"].to_numpy(),
                groups=groups,
                logits=logits.flatten().to_numpy().reshape(len(table), logits.type.list_size),
                predicted=columns["predicted"].to_numpy(),
                losses=columns["loss"].to_numpy(),
                pictures={row: Picture(*pair) for row, pair in enumerate(pictures) if pair[0] is not None},
                lacks=told["lacks"],
            )
        except Exception as error:  # of Arrow, of JSON, of NumPy: whatever a damaged file leads to
            raise ValueError(f"{path} is not what was written: {error}") from error
        for name, values, size in (
            ("labels", found.labels, num_labels),
            ("predicted classes", found.predicted, num_labels),
            ("groups", found.groups, num_groups),
        ):
            if (values is None) != (size is None) or (values is not None and not _within(values, size)):
                raise ValueError(f"{path} is of another run: its {name} are not those of the run's classes or groups.")
        if found.logits.shape[1] != num_labels:
            raise ValueError(f"{path} is of another run: it has {found.logits.shape[1]} classes, the run {num_labels}.")
        return found


def _within(values: np.ndarray, size: int) -> bool:
    return len(values) > 0 and 0 <= values.min() <= values.max() < size
