"""What is meta-learned, Ω: the interface of the networks, and how they are saved."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

FILES = CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
RECENT_FILE = "characteristics.safetensors"
RECENT = 256  # samples: enough for a mean response, and some kilobytes


class MetaNetwork(nn.Module):
    """Ω: a small network that says how each training sample changes the training loss, itself trained by the meta loss.

    A network is a file with a subclass, and a line in `META_NETWORKS`.

    Attributes:
        NAME: of what it gives, as it is logged.
        FOLDER: where a repository or checkpoint of a classifier keeps the network it was trained with.
        CARD: the template in `hub_cards` of the classifiers that it trains.
        LEVEL: what `level` is, with its unit, as an axis says it.
        TITLE, CAPTION: of the picture of its levels over training, by group or class.
        config: the arguments it was built with.
        characteristics: names of its inputs, in their order.
        takes_features: whether the features (n, d) are inputs too, behind the characteristics, and `training_loss` and
            `raises_loss` take `losses.Outputs` in the place of the logits.
        progress: the share of the training that is done, in [0, 1); set before every batch.
        at_rest: whether the look-ahead takes no step, the training loss being 0 where the hypergradient is taken.
        OF_BATCH: whether it is made anew in every batch (`BatchHyperparameters`), and then has no `FOLDER`.
    """

    NAME: str
    FOLDER: str | None
    CARD: str
    LEVEL: str
    TITLE: str
    CAPTION: str
    config: dict[str, Any]
    characteristics: tuple[str, ...]
    takes_features = False
    progress = 0.0
    at_rest = False
    OF_BATCH = False

    def __init__(self):
        super().__init__()
        # Buffers, so that they are on the network's device; no part of its weights.
        self.register_buffer("_recent_characteristics", None, persistent=False)
        self.register_buffer("_recent_labels", None, persistent=False)

    @classmethod
    def of(
        cls, settings: Any, num_labels: int, class_proportions: Tensor, class_counts: Tensor, num_features: int
    ) -> "MetaNetwork":
        """The network for a training set.

        Args:
            settings: has the fields of `CLPTrainingArguments`.
            num_labels: C.
            class_proportions: (C,), the share of every class in the training set.
            class_counts: (C,), the images of every class; of a stream 1.
            num_features: d, of the classifier.
        """
        raise NotImplementedError

    @property
    def recent(self) -> tuple[Tensor, Tensor] | None:
        """Inputs (n, k) and labels (n,) of the latest training samples, at most 256; None before training.

        Over them its response is drawn. They are saved beside the weights and are no part of them.
        """
        if self._recent_labels is None:
            return None
        return self._recent_characteristics, self._recent_labels

    @recent.setter
    def recent(self, values: tuple[Tensor, Tensor] | None) -> None:
        self._recent_characteristics, self._recent_labels = values or (None, None)

    def remember(self, characteristics: Tensor, labels: Tensor) -> None:
        """Take a batch of inputs (n, k) and their labels (n,) into `recent`."""
        batch = characteristics, labels
        kept = batch if self.recent is None else map(torch.cat, zip(self.recent, batch, strict=True))
        self.recent = tuple(values[-RECENT:] for values in kept)

    def begin_batch(self, characteristics: Tensor, labels: Tensor) -> None:
        """Before anything else is done with a batch of inputs (n, k) and their labels (n,)."""

    def hyperparameters(self, labels: Tensor) -> list[Tensor]:
        """In what the hypergradient is taken, for a batch with these labels (n,)."""
        return list(self.parameters())

    def update_statistics(self, characteristics: Tensor) -> None:
        """Take a batch of inputs (n, k) into the running statistics, where there are any."""

    def training_loss(self, logits: Tensor, output: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """The training loss of a batch, which sees Ω through `output`.

        Args:
            logits: (n, C), of the classifier.
            output: of this network for the batch, (n, …).
            labels: (n,).
            label_smoothing: of the cross-entropy.

        Returns:
            A scalar, in float32 or float64.
        """
        raise NotImplementedError

    def inner_problem(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """The same loss as softmax regression has it, whose minimum is that of `training_loss`.

        Args:
            output: of this network for n samples, (n, …).

        Returns:
            Offsets of the logits, (n, C) or (n, 1), and sample weights (n,) of mean 1.
        """
        raise NotImplementedError

    def level(self, output: Tensor, labels: Tensor) -> Tensor:
        """What the log shows of an output, (n,)."""
        raise NotImplementedError

    def raises_loss(self, logits: Tensor, output: Tensor, labels: Tensor) -> Tensor:
        """Whether a sample's part in the training loss is larger than without this network, bool (n,)."""
        raise NotImplementedError

    def signal(self, derivative: Tensor, labels: Tensor) -> Tensor:
        """(n,), positive where a sample should weigh more, from the derivative of the meta loss in the output."""
        raise NotImplementedError

    def save_beside(self, folder: str | os.PathLike) -> None:
        """Write it into its `FOLDER` in that of a classifier."""
        self.save_pretrained(Path(folder) / self.FOLDER)

    def load_beside(self, folder: str | os.PathLike) -> None:
        """Become what was written there."""
        network = type(self).from_pretrained(folder).to(next(self.parameters()).device)
        self.load_state_dict(network.state_dict())
        self.recent = network.recent

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write `config.json`, `model.safetensors` and, after training, `characteristics.safetensors` to a folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG_FILE).write_text(json.dumps(self.config, indent=2) + "\n")
        save_file(self.state_dict(), folder / WEIGHTS_FILE)
        if self.recent is not None:
            save_file(dict(zip(("characteristics", "labels"), self.recent, strict=True)), folder / RECENT_FILE)

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike, **hub_kwargs) -> "MetaNetwork":
        """Load the network from a folder, or from the `FOLDER` of a checkpoint or Hub repository (without `recent`).

        Args:
            name_or_path: a folder, or a repository on the Hub.
            **hub_kwargs: for `huggingface_hub.hf_hub_download`: `revision`, `token`, `cache_dir` …
        """
        folder = Path(name_or_path)
        if folder.is_dir():
            folder = folder / cls.FOLDER if (folder / cls.FOLDER).is_dir() else folder
            config, weights = folder / CONFIG_FILE, folder / WEIGHTS_FILE
        else:
            config, weights = (
                hf_hub_download(str(name_or_path), file, subfolder=cls.FOLDER, **hub_kwargs) for file in FILES
            )
        state = load_file(weights)
        network = cls(**json.loads(Path(config).read_text())).to(next(iter(state.values())).dtype)
        network.load_state_dict(state)
        if (recent := Path(config).parent / RECENT_FILE).is_file():
            values = load_file(recent)
            network.recent = values["characteristics"], values["labels"]
        return network
