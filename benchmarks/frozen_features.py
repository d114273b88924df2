"""A perceptron on the features of a pretrained network: what memorises wrong labels in a minute, not in hours.

`compare.py --frozen_features FOLDER` trains this in place of the model whose features it takes; the folder keeps them.
Images are seen as in evaluation, without augmentation, which dropout on the features stands for. For methods that take
images apart by their masks, features of the causal versions that they need are kept too (`causal_versions.py`).
"""

import copy
from pathlib import Path

import torch
from causal_versions import CausalVersions, Needed, causal_versions
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedConfig, PreTrainedModel, set_seed
from transformers.modeling_outputs import ImageClassifierOutput

from clp_hf import CLPTrainingArguments
from clp_hf.data import ImageClassificationDataset
from clp_hf.experiment import Experiment
from clp_hf.features import FeatureSet, extract_features
from clp_hf.modeling import parameter_count

HIDDEN_SIZE = 256
DROPOUT = 0.2


class PerceptronConfig(PreTrainedConfig):
    model_type = "perceptron"
    num_features: int = 0


class Perceptron(PreTrainedModel):
    """One hidden layer on standardised features, given as images of one row, (n, d, 1, 1 + V).

    It sees the first column; in the others are the features of causal versions.
    """

    config_class = PerceptronConfig
    main_input_name = "pixel_values"

    def __init__(self, config: PerceptronConfig):
        super().__init__(config)
        self.layers = nn.Sequential(
            nn.BatchNorm1d(config.num_features, affine=False),
            nn.Dropout(DROPOUT),
            nn.Linear(config.num_features, HIDDEN_SIZE),
            nn.BatchNorm1d(HIDDEN_SIZE),
            nn.ReLU(),
            nn.Linear(HIDDEN_SIZE, config.num_labels),
        )
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """PyTorch's initialisation is kept."""

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None, **_) -> ImageClassifierOutput:
        logits = self.layers(pixel_values[..., 0].flatten(1))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return ImageClassifierOutput(loss=loss, logits=logits)


# The classifier of a first stage is loaded as any other.
AutoConfig.register(PerceptronConfig.model_type, PerceptronConfig)
AutoModelForImageClassification.register(PerceptronConfig, Perceptron)


class FeatureDataset(torch.utils.data.Dataset):
    """The items of an image data set with features in the place of pixels.

    Args:
        found: features of the images as they are.
        images: the data set.
        versions: features of their causal versions.

    Attributes:
        features: (n, d), of the images as they are.
        causal_augmentation: shows causal versions; None where there are none.
        weight, corruption: as of `ImageClassificationDataset`.

    Items: `pixel_values` (d, 1, 1 + V), features of the image in the first column, of its versions in the others; where
    there are any, `mask` (1, 1, 1 + V), which is the first column, or empty for an image without foreground or
    background; and `labels`, `group` and `noisy` of the image.
    """

    weight: Tensor | None = None
    corruption: Tensor | None = None
    transform = None  # of every split: features are as evaluation has them

    def __init__(self, found: FeatureSet, images: ImageClassificationDataset, versions: CausalVersions | None = None):
        self.features, self.labels, self.group = found.features, found.labels, found.groups
        self.noisy, self.name = images.noisy, images.name
        self.versions = None if versions is None else versions.features
        self.maskable = None if versions is None else versions.maskable
        self.causal_augmentation = None if versions is None else versions.augmentation

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict:
        columns = self.features[index][:, None, None]
        item = {"pixel_values": columns, "labels": int(self.labels[index])}
        if self.versions is not None:
            item["pixel_values"] = columns = torch.cat([columns, self.versions[index].T[:, None]], 2)
            item["mask"] = torch.zeros_like(columns[:1])
            item["mask"][..., 0] = float(self.maskable[index])
        for name in ("group", "noisy"):
            if (values := getattr(self, name)) is not None:
                item[name] = int(values[index])
        return item

    learned, seen_by = ImageClassificationDataset.learned, ImageClassificationDataset.seen_by

    def decode(self) -> None:
        """There are no pixels."""

    def joined(self, other: "FeatureDataset", name: str) -> "FeatureDataset":
        """As of `ImageClassificationDataset`. Where these images have versions, the others stay as they are."""
        both = copy.copy(self)
        both.name = name
        for part in ("features", "labels", "group", "noisy"):
            parts = [getattr(self, part), getattr(other, part)]
            setattr(both, part, None if any(values is None for values in parts) else torch.cat(parts))
        if self.versions is not None:
            same = other.features[:, None].expand(-1, self.versions.shape[1], -1)
            both.versions = torch.cat([self.versions, same])
            both.maskable = torch.cat([self.maskable, torch.zeros(len(other), dtype=torch.bool)])
        return both


def freeze(experiment: Experiment, cache_dir: str, args: CLPTrainingArguments) -> None:
    """Have an experiment train a `Perceptron` on the features of its model, kept in `cache_dir`.

    Args:
        experiment: of images.
        cache_dir: a folder.
        args: of the method, which say what causal versions it needs.

    Raises:
        ValueError: it needs causal versions of a meta set that there is not yet.
    """
    needed = Needed.of(args)
    if needed["meta"] and experiment.meta is None:
        raise ValueError(
            "With frozen_features causal versions of the meta images are made before training, and there is no meta "
            "set yet. Have one taken out of a split: --meta_split train, or validation."
        )
    backbone = experiment.build_model()

    def extract(images: torch.utils.data.Dataset) -> FeatureSet:
        return extract_features(backbone, images, experiment.args, Path(cache_dir))

    frozen = {}
    for name in ("train", "meta", "validation", "test"):
        if (images := getattr(experiment, name)) is not None:  # not every data set has a test split
            images = experiment.as_evaluated(images)
            versions = causal_versions(images, needed.get(name, Needed()), args, extract)
            frozen[name] = FeatureDataset(extract(images), images, versions)
    for name, features in frozen.items():
        setattr(experiment, name, features)

    config = PerceptronConfig(
        num_features=experiment.train.features.shape[1], id2label=dict(enumerate(experiment.label_names))
    )

    def build_model() -> Perceptron:
        set_seed(experiment.args.seed)
        return Perceptron(config)

    experiment.build_model = build_model
    experiment.num_parameters = parameter_count(build_model())
