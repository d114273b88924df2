"""A perceptron on the features of a pretrained network: what memorises wrong labels in a minute, not in hours.

`compare.py --frozen_features FOLDER` trains this in place of the model whose features it takes; the folder keeps them.
Images are seen as in evaluation, without augmentation, which dropout on the features stands for.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, set_seed
from transformers.modeling_outputs import ImageClassifierOutput

from clp_hf.data import ImageClassificationDataset, ProcessorTransform
from clp_hf.experiment import Experiment
from clp_hf.features import FeatureSet, extract_features
from clp_hf.modeling import parameter_count

HIDDEN_SIZE = 256
DROPOUT = 0.2


class PerceptronConfig(PreTrainedConfig):
    model_type = "perceptron"
    num_features: int = 0


class Perceptron(PreTrainedModel):
    """One hidden layer on standardised features, given as images of one pixel, (n, d, 1, 1)."""

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
        logits = self.layers(pixel_values.flatten(1))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return ImageClassifierOutput(loss=loss, logits=logits)


class FeatureDataset(torch.utils.data.Dataset):
    """The items of an image data set with features in the place of pixels."""

    def __init__(self, features: FeatureSet, images: ImageClassificationDataset):
        self.features, self.labels, self.group = features.features, features.labels, features.groups
        self.noisy = images.noisy

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict:
        item = {"pixel_values": self.features[index][:, None, None], "labels": int(self.labels[index])}
        for name in ("group", "noisy"):
            if (values := getattr(self, name)) is not None:
                item[name] = int(values[index])
        return item


def seen_by(transform: ProcessorTransform, images: ImageClassificationDataset) -> ImageClassificationDataset:
    """The images decoded for this transform: they are kept at a size that is the transform's."""
    return images if images.transform is transform else ImageClassificationDataset(images.dataset, transform)


def freeze(experiment: Experiment, cache_dir: str) -> None:
    """Have an experiment train a `Perceptron` on the features of its model, kept in `cache_dir`."""
    backbone, transform = experiment.build_model(), experiment.validation.transform
    for name in ("train", "meta", "validation", "test"):
        images = getattr(experiment, name)
        if images is None:  # not every data set has a test split
            continue
        images = seen_by(transform, images)
        features = extract_features(backbone, images, experiment.args, Path(cache_dir))
        setattr(experiment, name, FeatureDataset(features, images))

    config = PerceptronConfig(
        num_features=experiment.train.features.shape[1], id2label=dict(enumerate(experiment.label_names))
    )

    def build_model() -> Perceptron:
        set_seed(experiment.args.seed)
        return Perceptron(config)

    experiment.build_model = build_model
    experiment.num_parameters = parameter_count(build_model())
