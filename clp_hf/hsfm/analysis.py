"""What did the edits do? Displacements along classes and attributes, nearest real images, nearest words."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from datasets import Dataset
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer, PreTrainedModel

from ..data.dataset import to_rgb
from ..features.feature_set import FeatureSet

PLACES = tuple(
    "land water forest grass bamboo desert mountain snow sky beach sea lake river street room".split()  # noqa: SIM905
)

# ---- displacements ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EditDisplacement:
    """How far the edit moved each of n support samples.

    Along a direction the unit is the standard deviation of the training features along it.

    Attributes:
        toward_class: (n,), along the direction that separates the sample's class from the rest; positive is further
            into its own class.
        toward_attribute: (n,), along the direction that separates the sample's attribute from the rest; positive is
            further into its own attribute.
        length: (n,), of the whole displacement, in root-mean-square distances of training features from their mean:
            an edit much longer than 1 has left the region of real images.
        labels, attributes: (n,), of the samples.
    """

    toward_class: Tensor
    toward_attribute: Tensor
    length: Tensor
    labels: Tensor
    attributes: Tensor

    def per_class(self) -> dict[int, dict[str, float]]:
        """Class -> `count`, and mean and (population) standard deviation of each displacement."""
        return {label: self._summary(self.labels == label) for label in self.labels.unique().tolist()}

    def per_group(self) -> dict[tuple[int, int], dict[str, float]]:
        """(class, attribute) -> as `per_class`."""
        pairs = torch.stack([self.labels, self.attributes], 1)
        return {tuple(pair.tolist()): self._summary((pairs == pair).all(1)) for pair in pairs.unique(dim=0)}

    def _summary(self, rows: Tensor) -> dict[str, float]:
        summary = {"count": int(rows.sum())}
        for name in ("toward_class", "toward_attribute", "length"):
            values = getattr(self, name)[rows]
            summary |= {f"{name}_mean": values.mean().item(), f"{name}_std": values.std(correction=0).item()}
        return summary


def edit_displacement(
    train: FeatureSet,
    before: Tensor,
    after: Tensor,
    labels: Tensor,
    indices: Tensor,
    *,
    attributes: Tensor | None = None,
    strength: float = 1e-2,
) -> EditDisplacement:
    """Project the edits on the directions that separate classes and attributes.

    A direction is the unit normal of a linear probe, one value against the rest: logistic regression on standardised
    training features, mapped back. Every (class, attribute) group weighs the same, or the probe of the class would
    find the attribute that goes along with it.

    Args:
        train: with groups, or `attributes` beside it.
        before, after: (n, d) support features.
        labels: (n,) their fixed labels.
        indices: (n,) which training samples they were.
        attributes: (N,) attribute of every training sample; by default from `train.groups`, where group = attributes *
            label + attribute.
        strength: scikit-learn's inverse strength `C` of the probes' L2 penalty.

    Returns:
        `EditDisplacement`.

    Raises:
        ValueError: shapes or labels do not agree, attributes are unknown, training has one class or attribute only, or
            its features do not vary.
    """
    _check_support(train, before, indices, after=after)
    if not torch.equal(labels, train.labels[indices]):
        raise ValueError(
            "The support labels are not those of the training samples at `indices`; are both in one order?"
        )
    attributes = _attributes(train) if attributes is None else attributes
    if attributes.shape != train.labels.shape:
        raise ValueError(f"Expected one attribute per training sample, {len(train)}, got {tuple(attributes.shape)}.")
    scaler = StandardScaler()
    inputs = scaler.fit_transform(train.features.numpy())
    groups = train.labels * (attributes.max() + 1) + attributes
    weights = compute_sample_weight("balanced", groups.numpy())
    moved = (after - before).double()
    spread = train.features.var(0, correction=0).sum().sqrt()

    def project(values: Tensor, kind: str) -> Tensor:
        if len(values.unique()) < 2:
            raise ValueError(f"The training features are all of {kind} {int(values[0])}: nothing separates it.")
        result = torch.zeros(len(moved), dtype=torch.float64)
        for value in values[indices].unique():
            own = (values == value).numpy()
            probe = LogisticRegression(C=strength, max_iter=1000).fit(inputs, own, weights)
            normal = torch.from_numpy(probe.coef_[0] / scaler.scale_)
            if not normal.any():
                raise ValueError(f"Nothing separates {kind} {int(value)}: the training features do not vary with it.")
            unit = normal / normal.norm()
            rows = values[indices] == value
            result[rows] = moved[rows] @ unit / (train.features.double() @ unit).std(correction=0)
        return result.float()

    return EditDisplacement(
        toward_class=project(train.labels, "class"),
        toward_attribute=project(attributes, "attribute"),
        length=(after - before).norm(dim=1) / spread,
        labels=labels,
        attributes=attributes[indices],
    )


def _attributes(train: FeatureSet) -> Tensor:
    if train.groups is None:
        raise ValueError("Attributes are unknown: the training features have no groups. Pass `attributes`.")
    num_attributes = -(-(int(train.groups.max()) + 1) // train.num_classes)
    if not torch.equal(train.groups // num_attributes, train.labels):
        raise ValueError(
            f"Groups up to {int(train.groups.max())} of {train.num_classes} classes are not attributes * label + "
            "attribute, so attributes cannot be read from them. Pass `attributes`."
        )
    return train.groups % num_attributes


def _check_support(train: FeatureSet, before: Tensor, indices: Tensor, **others: Tensor) -> None:
    shape = (len(indices), train.features.shape[1])
    found = {name: tuple(tensor.shape) for name, tensor in {"before": before, **others}.items()}
    if set(found.values()) != {shape} or not len(indices):
        raise ValueError(f"Expected support features {shape} for {len(indices)} indices, n > 0, got {found}.")
    if indices.min() < 0 or indices.max() >= len(train):
        raise ValueError(
            f"Support indices must be in 0 … {len(train) - 1}, the training set, got {int(indices.min())} … "
            f"{int(indices.max())}."
        )


# ---- nearest real images ---------------------------------------------------------------------------------------------


def nearest_images(train: FeatureSet, features: Tensor, indices: Tensor, k: int = 5) -> Tensor:
    """The training images whose features are most like `features`, by cosine, without the sample itself.

    Args:
        features: (n, d) support features, before or after the edit.
        indices: (n,) which training samples they were.
        k: neighbours, 1 … N − 1.

    Returns:
        (n, k) indices into `train`, nearest first.

    Raises:
        ValueError: shapes or indices do not fit, or there are fewer than k other images.
    """
    _check_support(train, features, indices)
    if not 1 <= k < len(train):
        raise ValueError(f"k must be in 1 … {len(train) - 1}, the number of other training images, got {k}.")
    cosines = F.normalize(features) @ F.normalize(train.features).T
    cosines[torch.arange(len(indices)), indices] = -torch.inf
    return cosines.topk(k).indices


def draw_neighbours(
    path: str | os.PathLike,
    images: Dataset | Callable[[int], Image.Image],
    indices: Tensor,
    before: Tensor,
    after: Tensor,
    *,
    captions: Sequence[str] | None = None,
) -> None:
    """Draw a row per support sample: its image, its nearest images before the edit, and those after it.

    Args:
        path: of the picture; its ending says the format. Its folder is made.
        images: the training split with a column `image`, or a function of an index.
        indices: (n,) training indices of the support samples.
        before, after: (n, k) from `nearest_images`.
        captions: one per training image, such as the name of its group.

    Raises:
        ValueError: the numbers of rows or columns differ.
        ModuleNotFoundError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure  # not a requirement of training

    if before.shape != after.shape or before.ndim != 2 or len(before) != len(indices):
        raise ValueError(
            f"Expected before and after (n, k) for n = {len(indices)} samples, got {tuple(before.shape)} and "
            f"{tuple(after.shape)}."
        )
    picture = images if callable(images) else lambda index: images[index]["image"]
    table = torch.cat([indices[:, None], before, after], 1).tolist()
    k = before.shape[1]
    figure = Figure(figsize=(1.3 * (2 * k + 1.6), 1.5 * len(table)), layout="constrained")
    # A narrow empty column sets the three parts apart.
    grid = figure.add_gridspec(len(table), 2 * k + 3, width_ratios=[1, 0.3, *[1] * k, 0.3, *[1] * k])
    places = [0, *range(2, k + 2), *range(k + 3, 2 * k + 3)]
    titles = {0: "support sample", 1: "nearest before", k + 1: "nearest after"}
    for row, line in enumerate(table):
        for position, index in enumerate(line):
            axes = figure.add_subplot(grid[row, places[position]], xticks=[], yticks=[])
            axes.imshow(to_rgb(picture(index)))
            axes.set_xlabel("" if captions is None else captions[index], fontsize=7)
            if row == 0 and position in titles:
                axes.set_title(titles[position], fontsize=9, loc="left")
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    figure.savefig(path, dpi=120)


# ---- words -----------------------------------------------------------------------------------------------------------


def clip_features(model: PreTrainedModel, pixel_values: Tensor) -> Tensor:
    """Image embeddings (n, d) of a CLIP or SigLIP model, in the space of its text embeddings, not normalised.

    Args:
        model: a transformers model with `get_image_features`, such as `CLIPModel` or `SiglipModel`.
        pixel_values: (n, 3, H, W), normalised as its processor does.

    Returns:
        (n, d) float32 without graph; d is CLIP's `projection_dim`, SigLIP's hidden size.
    """
    with torch.no_grad():
        return _embeddings(model.get_image_features(pixel_values=pixel_values))


def nearest_words(
    model_name_or_path: str | os.PathLike,
    displacement: Tensor,
    labels: Tensor,
    words: Sequence[str] = PLACES,
    *,
    template: str = "a photo of {}",
    **hub_kwargs,
) -> dict[int, list[tuple[str, float]]]:
    """The words nearest to the mean edit of each class, by cosine in the space of a CLIP or SigLIP model.

    Args:
        model_name_or_path: Hub name or folder of the model, with its tokenizer, whose `clip_features` were edited.
        displacement: (n, d), support features after minus before the edit.
        labels: (n,) of the support samples.
        words: what the edit may be about.
        template: the text of a word, with `{}` in its place.
        **hub_kwargs: for both `from_pretrained`: `cache_dir`, `revision`, `token` …

    Returns:
        Class -> all words with their cosine in [−1, 1], highest first: the edit goes towards the first, away from the
        last. What all the texts share moves all scores alike: read their order and differences, not their level.

    Raises:
        ValueError: there are no words, the model has no text embeddings, features and texts have different
            dimensions, or the edits of a class cancel.
    """
    if not words or "{}" not in template:
        raise ValueError(f"Expected one word or more and a template with {{}}, got {list(words)} and {template!r}.")
    model, report = AutoModel.from_pretrained(model_name_or_path, output_loading_info=True, **hub_kwargs)
    # A classifier made of the image tower alone would load with a random text tower.
    if not hasattr(model, "get_text_features") or report["missing_keys"]:
        raise ValueError(
            f"{model_name_or_path} has no text embeddings: {type(model).__name__} lacks {len(report['missing_keys'])} "
            "weights. Give the CLIP or SigLIP model that the backbone comes from."
        )
    model.eval()
    tokenizer = AutoTokenizer.from_pretrained(model_name_or_path, **hub_kwargs)
    # Padded to the full length: SigLIP was trained so, and CLIP does not look behind its end token.
    length = model.config.text_config.max_position_embeddings
    texts = [template.format(word) for word in words]
    tokens = tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    with torch.no_grad():
        embeddings = F.normalize(_embeddings(model.get_text_features(**tokens)))
    if displacement.ndim != 2 or displacement.shape[1] != embeddings.shape[1] or len(displacement) != len(labels):
        raise ValueError(
            f"Expected displacements ({len(labels)}, {embeddings.shape[1]}), as many dimensions as the text embeddings "
            f"of {model_name_or_path}, got {tuple(displacement.shape)}: extract the features with `clip_features`."
        )
    nearest = {}
    for label in labels.unique().tolist():
        direction = displacement[labels == label].float().mean(0)
        if not direction.any():
            raise ValueError(f"The edits of class {label} are zero on average: they have no direction.")
        scores = embeddings @ F.normalize(direction, dim=0)
        order = scores.argsort(descending=True).tolist()
        nearest[label] = [(words[index], scores[index].item()) for index in order]
    return nearest


def _embeddings(output) -> Tensor:
    """transformers returns the embeddings themselves or, in later releases, an output that holds them."""
    return (output if isinstance(output, Tensor) else output.pooler_output).float()
