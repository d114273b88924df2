"""CLP on features of a frozen backbone: the strength of the evidence is judged by the head that training ends with.

With the evidence u_e of `perturbation/evidence` the perturbation of a training image is δ_i(Ω) = Σ_e a_e u_e,i. The
head of a given Ω = (a_e) is the solution of

    W*(Ω) = argmin_W  Σ_i w_i CE(x_i W + δ_i(Ω), y_i) / n + ρ mean_meta CE(x_j W, y_j) + λ ‖W‖² / 2,

and Ω follows the gradient of the meta loss (CLP, Eq. 9) at W*(Ω), which `bilevel/implicit` computes.
Where there is nothing else to learn from (no evidence, no swapped images) the meta images are trained on too (ρ = 1),
as Deep Feature Reweighting does: each is judged by a head that has not seen it. Elsewhere ρ = 0: once seen in training,
they say less of what the head does with other images (`benchmarks/results/ablation`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..bilevel.implicit import SoftmaxRegression, Solution, implicit_hypergradient
from ..causal.losses import meta_loss
from ..features import CausalFeatures, FeatureSet, Head
from ..perturbation.evidence import ON_FEATURES, Material, agreement, class_weights, evidence_on_features
from ..utils.names import did_you_mean

SWAPPED_STRENGTH = 0.25
BIAS_STRENGTH = 0.75  # what is learned most easily has seen the object too: all of it would take that out as well
MORE_IMAGES = "add some, or leave the class out"
WITHOUT_MASKS = "mend the masks, or choose another evidence"
SMALLEST_SPREAD = 1e-3  # of a feature, as a share of the mean one: what hardly varies is not blown up


@dataclass(frozen=True)
class CLPHeadSettings:
    """Settings of `clp_head`.

    Attributes:
        evidence: kinds, out of `background`, `attribute` and `bias`; none: the meta set is all there is to learn from.
        ridge: λ, in units of the mean squared length of a feature vector.
        meta_weight: ρ, of all meta images together; 1 is as much as all training images together, 0 leaves them out. By
            default 1 where there is neither evidence nor a swapped image, else 0.
        steps: updates of Ω by Adam; 0 keeps the strengths where they start.
        rate: of these.
        strength: a₀, of all evidence together, where learning starts; by default 1, of `bias` 0.75, and 0.25 where
            swapped images are trained on, which leave less to take out.
        prior: keeps the strengths near where they start, prior ‖a − a₀‖²: forty images cannot say much more.
        folds: of the training images for the evidence, and of the meta images.
        seed: of the folds.
    """

    evidence: tuple[str, ...] = ("background",)
    ridge: float = 3e-4
    meta_weight: float | None = None
    steps: int = 12
    rate: float = 0.2
    strength: float | None = None
    prior: float = 0.1
    folds: int = 5
    seed: int = 0

    def __post_init__(self):
        if unknown := set(self.evidence) - set(ON_FEATURES):
            names = ", ".join(sorted(unknown))
            raise ValueError(
                f"There is no evidence {names}; choose out of {', '.join(ON_FEATURES)}."
                f"{did_you_mean(sorted(unknown)[0], ON_FEATURES)}"
            )
        if not 0 < self.ridge < float("inf"):
            raise ValueError(
                f"ridge is {self.ridge}; expected a number above 0: without it classes that can be separated have no "
                "best head."
            )
        for name in ("meta_weight", "steps", "rate", "prior"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise ValueError(f"{name} is {value}; expected a number, 0 or more.")
        if self.folds < 2:
            raise ValueError(f"folds is {self.folds}; expected 2 or more: no image is judged by what it taught.")


@dataclass(frozen=True)
class CLPHeadResult:
    """A head and how it came about.

    Attributes:
        head: for the features as they are.
        settings: it was made with.
        strengths: a, by kind of evidence.
        agreement: by kind of evidence, the share of training images whose label it favours.
        meta_loss: of the heads that have not seen the meta image they judge.
        history: of every update of Ω, the meta loss and the strengths before it; with those after the last one.
        score: of the selection, (worst, average) on validation; or minus the meta loss, where there is none.
    """

    head: Head
    settings: CLPHeadSettings
    strengths: dict[str, float]
    agreement: dict[str, float]
    meta_loss: float
    history: list[dict[str, float]] = field(default_factory=list)
    score: tuple[float, ...] = ()


def clp_head(
    train: CausalFeatures,
    meta: CausalFeatures,
    settings: Sequence[CLPHeadSettings],
    meta_attributes: Tensor | None = None,
    validation: FeatureSet | None = None,
) -> list[CLPHeadResult]:
    """Learn a head for each of several settings. Validation, where there is one, chooses the update of Ω too.

    Args:
        train: of n images. Swapped ones are trained on beside those as they are, all draws together once as much.
        meta: of m images that are not among these; with causal versions of them where train has them.
        settings: to try.
        meta_attributes: (m,), in 0 … A − 1; what the evidence `attribute` needs.
        validation: for the score.

    Returns:
        The results in the order of the settings; `best` chooses.

    Raises:
        ValueError: an evidence without what it needs, a class without images, or attributes that cannot be learned.
    """
    problem = HeadProblem(train, meta, meta_attributes)
    results = []
    for setting in settings:
        if validation is None:
            (last,) = problem.learn(setting, last_only=True)
            results.append(replace(last, score=(-last.meta_loss,)))
        else:
            scored = [replace(one, score=one.head.accuracy(validation)) for one in problem.learn(setting)]
            results.append(best(scored[::-1]))  # of equals what was learned longest
    return results


def best(results: Sequence[CLPHeadResult]) -> CLPHeadResult:
    """Of several the one with the best score, the first of equals."""
    return max(results, key=lambda result: result.score)


def check_two_of_each(labels: Tensor, num_classes: int, what: str, fix: str = MORE_IMAGES) -> None:
    """Two images of every class or more, so that none is judged by a head that knows no other one of its class.

    Raises:
        ValueError: names the classes and how many images they have.
    """
    counts = torch.bincount(labels, minlength=num_classes).tolist()
    if few := {label: count for label, count in enumerate(counts) if count < 2}:
        told = ", ".join(f"class {label} has {count or 'none'}" for label, count in few.items())
        raise ValueError(f"Two images of every class are needed, and of the {what} {told}: {fix}.")


class HeadProblem:
    """What all settings have in common; features are standardised by the training images."""

    def __init__(self, train: CausalFeatures, meta: CausalFeatures, meta_attributes: Tensor | None):
        self.classes = train.images.num_classes
        self._check(train, meta, meta_attributes)
        features = train.images.features
        self.mean, spread = features.mean(0), features.std(0)
        if not spread.any():
            raise ValueError(f"All {len(train)} training images have the same features: nothing can be learned.")
        self.spread = spread + SMALLEST_SPREAD * spread.mean()
        self.train, self.meta, self.meta_attributes = train, meta, meta_attributes
        self.features, self.meta_features = self._standard(features), self._standard(meta.images.features)
        self.length = float(self.features.square().sum(1).mean())
        self.weights = class_weights(train.labels, self.classes)
        self.rows, self.meta_versions = self._rows(), self._meta_versions()
        self.regression = SoftmaxRegression(*self.rows[:2], self.classes)
        self.evidence: dict[tuple, Tensor] = {}

    def _standard(self, features: Tensor | None) -> Tensor | None:
        return None if features is None else (features - self.mean) / self.spread

    def _check(self, train: CausalFeatures, meta: CausalFeatures, attributes: Tensor | None) -> None:
        shapes = [(part.images.num_classes, part.images.features.shape[1]) for part in (train, meta)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"Training and meta features must be of one backbone; their (classes, dimensions) are {shapes[0]} and "
                f"{shapes[1]}."
            )
        check_two_of_each(train.labels, self.classes, "training set")
        check_two_of_each(meta.labels, self.classes, "meta set")
        if attributes is None:
            return
        counts = torch.bincount(attributes).tolist()
        if len(counts) < 2 or min(counts) < 2:
            raise ValueError(
                f"The meta set has {counts} images of the attribute's values; expected two values or more, and two "
                "images of each. Enlarge the meta set, or go without the evidence 'attribute'."
            )

    # ---- evidence ----------------------------------------------------------------------------------------------------

    def evidence_of(self, settings: CLPHeadSettings) -> Tensor:
        """(E, n, C)."""
        missing = {
            "background": self.train.background is None and "masks of the training images",
            "attribute": self.meta.images.groups is None and "the group of every meta image",
        }
        found = [self.train.labels.new_zeros(0, len(self.train), self.classes).float()]
        for kind in settings.evidence:
            if missing.get(kind):
                able = [other for other in ON_FEATURES if not missing.get(other)]
                raise ValueError(f"The evidence {kind!r} needs {missing[kind]}; with these data: {', '.join(able)}.")
            if kind == "background":
                usable = self.train.labels[self.train.maskable]
                check_two_of_each(usable, self.classes, "training images with a usable mask", WITHOUT_MASKS)
            key = (kind, settings.folds, settings.seed)
            if kind == "attribute":
                key += (settings.ridge,)
            if key not in self.evidence:
                self.evidence[key] = evidence_on_features(kind, self._material(settings))
            found.append(self.evidence[key][None])
        return torch.cat(found)

    def _material(self, settings: CLPHeadSettings) -> Material:
        return Material(
            self.features,
            self.train.labels,
            self.classes,
            self.weights,
            _folds(self.train.labels, settings.folds, settings.seed),
            self._standard(self.train.background),
            self.train.maskable,
            self.meta_features,
            self.meta.labels,
            self.meta_attributes,
            settings.ridge,
            self.meta.images.groups,
        )

    # ---- the inner problem -------------------------------------------------------------------------------------------

    def _rows(self) -> tuple[Tensor, Tensor, Tensor]:
        """Features, labels and weights of all that is trained on: images, swapped ones, meta images."""
        swapped = self._standard(self.train.swapped)
        copies = 0 if swapped is None else len(swapped)
        swapped = self.features[:0] if swapped is None else swapped.flatten(0, 1)
        weights = [self.weights, *([self.weights * self.train.maskable / copies] * copies if copies else [])]
        weights = torch.cat(weights)
        features = torch.cat([self.features, swapped, self.meta_features])
        labels = torch.cat([self.train.labels.repeat(1 + copies), self.meta.labels])
        return features, labels, weights

    def learn(self, settings: CLPHeadSettings, last_only: bool = False) -> Iterator[CLPHeadResult]:
        """Ω before every update and after the last one, with the head of it; or after the last one alone."""
        if settings.meta_weight is None:
            alone = not settings.evidence and self.train.swapped is None
            settings = replace(settings, meta_weight=float(alone))
        evidence = self.evidence_of(settings)
        features, labels, weights = self.rows
        m = len(self.meta)
        offsets = F.pad(evidence, (0, 0, 0, len(labels) - evidence.shape[1]))  # 0 for swapped and meta images
        fold = _folds(self._meta_cells(), settings.folds, settings.seed)
        runs = settings.folds if settings.meta_weight else 1
        judged = fold == torch.arange(runs)[:, None] if settings.meta_weight else torch.ones(1, m, dtype=torch.bool)

        def weights_of(seen: Tensor) -> Tensor:
            """(R, n + m), of meta images that are seen, (R, m)."""
            seen = seen / seen.sum(1, keepdim=True).clamp(min=1)
            both = [weights.expand(len(seen), -1) / weights.sum(), settings.meta_weight * seen]
            return torch.cat(both, 1) * len(labels)

        inner_weights = weights_of((~judged).float())
        ridge = features.new_tensor(settings.ridge * self.length)
        start = features.new_tensor([self._start(kind, settings) for kind in settings.evidence])
        first = start / max(len(evidence), 1)
        strengths = first.clone().requires_grad_()
        optimizer = torch.optim.Adam([strengths], lr=settings.rate)
        solution, of_all, history = None, None, []

        def inner() -> tuple[Tensor, Tensor, Tensor]:
            delta = torch.einsum("e,enc->nc", strengths, offsets)
            return delta.expand(runs, -1, -1), inner_weights, ridge.expand(runs)

        def outer(weight: Tensor, bias: Tensor) -> Tensor:
            return self.meta_loss(weight, bias, judged) + settings.prior * (strengths - first).square().sum()

        agreements = {
            kind: agreement(u, self.train.labels) for kind, u in zip(settings.evidence, evidence, strict=True)
        }
        whole, last = weights_of(torch.ones(1, m)), settings.steps if len(evidence) else 0
        for step in range(last + 1):
            if step < last:
                gradient, solution = implicit_hypergradient(self.regression, inner, outer, [strengths], solution)
            else:
                with torch.no_grad():
                    solution = self.regression.solve(*inner(), solution)
            with torch.no_grad():
                loss = float(self.meta_loss(solution.weight, solution.bias, judged))
            values = dict(zip(settings.evidence, strengths.tolist(), strict=True))
            history.append({"meta_loss": loss} | {f"strength_{kind}": value for kind, value in values.items()})
            if step == last or not last_only:
                with torch.no_grad():
                    of_all = self.regression.solve(inner()[0][:1], whole, ridge[None], of_all or _mean(solution))
                yield CLPHeadResult(self._folded(of_all), settings, values, agreements, loss, history)
            if step < last:
                strengths.grad = gradient.total[0]
                optimizer.step()

    def _start(self, kind: str, settings: CLPHeadSettings) -> float:
        if settings.strength is not None:
            return settings.strength
        if self.train.swapped is not None:
            return SWAPPED_STRENGTH
        return BIAS_STRENGTH if kind == "bias" else 1.0

    def meta_loss(self, weight: Tensor, bias: Tensor, judged: Tensor) -> Tensor:
        """Of the meta images and their causal versions (Eq. 9), each by the run (R, m) that judges it."""
        features, labels, counterfactual, usable = self.meta_versions
        logits = features @ weight.mT + bias[:, None]  # (R, M, C)
        run, row = (judged.repeat(1, len(labels) // len(self.meta)) & usable).nonzero(as_tuple=True)
        return meta_loss(logits[run, row], labels[row], counterfactual[row])

    def _meta_versions(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of the meta images and their causal versions: features, labels, whether counterfactual, whether of use."""
        every = torch.ones(len(self.meta), dtype=torch.bool)
        versions = [(self.meta_features, False, every)]
        if self.meta.background is not None:
            versions.append((self._standard(self.meta.background), True, self.meta.maskable))
            swapped = () if self.meta.swapped is None else self.meta.swapped
            versions += [(self._standard(draw), False, self.meta.maskable) for draw in swapped]
        features, roles, usable = zip(*versions, strict=True)
        counterfactual = torch.tensor(roles).repeat_interleave(len(self.meta))
        return torch.cat(features), self.meta.labels.repeat(len(versions)), counterfactual, torch.cat(usable)

    def _meta_cells(self) -> Tensor:
        """What the folds of the meta images are balanced by."""
        groups = self.meta.images.groups
        return self.meta.labels if groups is None else groups

    def _folded(self, solution: Solution) -> Head:
        """For features that are not standardised."""
        weight = solution.weight[0] / self.spread
        return Head(weight, solution.bias[0] - weight @ self.mean)


def _folds(cells: Tensor, folds: int, seed: int) -> Tensor:
    """(n,) in 0 … folds − 1, of every cell as many in each as can be."""
    order = torch.randperm(len(cells), generator=torch.Generator().manual_seed(seed))
    order = order[cells[order].argsort(stable=True)]
    fold = torch.empty_like(cells)
    fold[order] = torch.arange(len(cells)) % folds
    return fold


def _mean(solution: Solution) -> Solution:
    """Of all runs, as one."""
    return Solution(solution.weight.mean(0, keepdim=True), solution.bias.mean(0, keepdim=True), solution.converged, 0)
