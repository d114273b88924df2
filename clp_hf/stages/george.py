"""Hidden subclasses: clusters of each class in the features of a plainly trained network."""

from __future__ import annotations

import numpy as np
import torch

from .base import Learned, Reference

DIMENSIONS = 2
MOST_COMPARED = 5000  # images, whose distances to all others the silhouette takes


def george(reference: Reference, *, most_clusters: int = 10, smallest_cluster: int = 10) -> Learned:
    """Groups (class, cluster) by GEORGE (Sohoni et al. 2020, "No subclass left behind: fine-grained robustness in
    coarse-grained classification problems", section 4 and Algorithm 1), which GroupDRO is then trained on.

    The features of each class are brought to two dimensions and clustered by a mixture of Gaussians, their number, 2 to
    10, by the largest silhouette. Departures: PCA in the place of UMAP, which needs a package of its own; no
    overclustering, their second pass that splits clusters again; clusters of fewer than ten images go to the nearest
    other one, as a group has to be met often enough; and the checkpoint is selected as for the other methods, and not
    by the worst cluster of validation.

    Args:
        reference: of a network trained to the end.
        most_clusters: of a class, 2 or more.
        smallest_cluster: images, 1 or more.

    Raises:
        ValueError: a setting is out of range, or every class is one cluster.
    """
    if most_clusters < 2 or smallest_cluster < 1:
        raise ValueError(
            f"most_clusters is {most_clusters} and smallest_cluster {smallest_cluster}; expected 2 and 1 or more."
        )
    train, groups, told, before = reference.train, torch.zeros_like(reference.train.labels), [], 0
    for label, name in enumerate(reference.label_names):
        members = train.labels == label
        found = clusters(train.features[members].double().numpy(), int(most_clusters), smallest_cluster, reference.seed)
        groups[members] = before + torch.from_numpy(found)
        told.append(f"{name} {' and '.join(map(str, np.bincount(found)))}")
        before += found.max() + 1
    if before == len(reference.label_names):
        raise ValueError(
            f"GEORGE found one cluster only in every class that has {smallest_cluster} images or more. Lower it by "
            "--stage_options '{\"smallest_cluster\": 2}', or choose a method without clusters."
        )
    return Learned(f"Clusters were found inside the classes (images of each: {', '.join(told)}).", group=groups)


def clusters(features: np.ndarray, most: int, smallest: int, seed: int) -> np.ndarray:
    """The cluster of every image of a class, (n,), numbered from 0 by size; one where there are too few images.

    Args:
        features: (n, d).
        most: clusters that are tried.
        smallest: images; those of a smaller cluster go to the nearest that is large enough.
        seed: of mixture and silhouette.
    """
    from sklearn.decomposition import PCA  # half a second to import, needed here only
    from sklearn.metrics import silhouette_score
    from sklearn.mixture import GaussianMixture

    one = np.zeros(len(features), dtype=int)
    numbers = range(2, min(most, len(features) // max(2, smallest)) + 1)
    points = PCA(min(DIMENSIONS, *features.shape), random_state=seed).fit_transform(features) if len(numbers) else one
    best, best_score = one, -np.inf
    for number in numbers:
        found = GaussianMixture(number, random_state=seed, reg_covar=1e-6 * points.var() + 1e-12).fit_predict(points)
        found = _merged(points, found, smallest)
        if found.max() == 0:
            continue
        score = silhouette_score(points, found, sample_size=min(len(points), MOST_COMPARED), random_state=seed)
        if score > best_score:
            best, best_score = found, score
    return best


def _merged(points: np.ndarray, found: np.ndarray, smallest: int) -> np.ndarray:
    sizes = np.bincount(found)
    kept = [cluster for cluster in np.argsort(-sizes, kind="stable") if sizes[cluster] >= smallest]
    if not kept:
        return np.zeros_like(found)
    centres = np.stack([points[found == cluster].mean(0) for cluster in kept])
    nearest = np.linalg.norm(points[:, None] - centres, axis=2).argmin(1)
    number = {cluster: position for position, cluster in enumerate(kept)}
    return np.array([number.get(cluster, near) for cluster, near in zip(found, nearest, strict=True)])
