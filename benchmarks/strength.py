"""How strong should the evidence be? What the meta loss says one step ahead and at convergence, and what is right.

    python benchmarks/strength.py --scenario waterbirds --results benchmarks/results/strength/waterbirds_like \\
        --features FOLDER --dataset_name PATH/TO/waterbirds_like --seeds 0 1 2 3 4

On frozen features, with ten meta images a group: the meta loss after one step ahead of the head that training without
evidence ends with, that at the head which training with the evidence ends with, and the worst group of validation
there, over the strength of the evidence. Writes a file a seed and `strength.png`. Nothing is chosen, no test image is
looked at.
"""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from common import seed_records, write_record
from information import Knowledge, knowledge, prepared

from clp_hf.clp_head import CLPHeadSettings, clp_head
from clp_hf.clp_head.learning import HeadProblem

STRENGTHS = [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0]
RIDGE = 3e-4
STEPS = 300
RATE = 0.05


class OneStep:
    """The look-ahead by one plain gradient step of the head, of the largest size at which training is stable.

    Args:
        of: features.
        settings: of the evidence and the ridge.
    """

    def __init__(self, of: Knowledge, settings: CLPHeadSettings):
        self.problem = HeadProblem(of.train, of.meta, of.attributes)
        self.evidence = self.problem.evidence_of(settings).sum(0)
        features, labels, weights = self.problem.rows
        self.features, self.labels = features, labels
        self.weights = torch.cat([weights / weights.sum(), torch.zeros(len(of.meta))])  # meta images only judge
        self.ridge = settings.ridge * self.problem.length
        largest = torch.linalg.matrix_norm(features * self.weights.sqrt()[:, None], 2).square()
        self.rate = float(1 / (largest / 2 + self.ridge))
        self.judged = torch.ones(1, len(of.meta), dtype=torch.bool)

    def start(self) -> list[torch.Tensor]:
        classes, length = self.problem.classes, self.features.shape[1]
        return [torch.zeros(classes, length), torch.zeros(classes)]

    def step(self, head: list[torch.Tensor], strength: torch.Tensor) -> list[torch.Tensor]:
        """The head after a step, with its graph in the strength."""
        weight, bias = head
        offsets = torch.zeros(len(self.labels), self.problem.classes)
        offsets[: len(self.evidence)] = self.evidence
        logits = self.features @ weight.T + bias + strength * offsets
        error = self.weights[:, None] * (logits.softmax(-1) - torch.nn.functional.one_hot(self.labels, logits.shape[1]))
        return [weight - self.rate * (error.T @ self.features + self.ridge * weight), bias - self.rate * error.sum(0)]

    def meta_loss(self, head: list[torch.Tensor]) -> torch.Tensor:
        return self.problem.meta_loss(head[0][None], head[1][None], self.judged)


def learned_one_step_ahead(of: Knowledge, evidence: tuple[str, ...], ridge: float, **settings) -> float:
    """The strength that CLP's Algorithm 1 ends with: head and strength in turn, from 1 on."""
    of_step = OneStep(of, CLPHeadSettings(evidence, ridge, seed=of.seed, **settings))
    strength = torch.ones((), requires_grad=True)
    optimizer = torch.optim.Adam([strength], lr=RATE)
    head = of_step.start()
    for _ in range(STEPS):
        (strength.grad,) = torch.autograd.grad(of_step.meta_loss(of_step.step(head, strength)), strength)
        optimizer.step()
        head = of_step.step(head, strength.detach())
    return float(strength.detach())


def curves(of: Knowledge, evidence: str) -> dict[str, list[float]]:
    """Over `STRENGTHS`: the meta loss one step ahead and at convergence, and the worst group of validation."""
    settings = {"evidence": (evidence,), "ridge": RIDGE, "seed": of.seed}
    of_step = OneStep(of, CLPHeadSettings(**settings))
    trained, none = of_step.start(), torch.zeros(())
    for _ in range(STEPS):
        trained = of_step.step(trained, none)
    ended = clp_head(
        of.train, of.meta, [CLPHeadSettings(**settings, strength=strength, steps=0) for strength in STRENGTHS],
        of.attributes,
    )  # fmt: skip
    return {
        "one step": [float(of_step.meta_loss(of_step.step(trained, torch.tensor(value)))) for value in STRENGTHS],
        "convergence": [one.meta_loss for one in ended],
        "worst group": [one.head.accuracy(of.validation)[0] for one in ended],
    }


def main():
    benchmark, features, results = prepared(__doc__)
    for seed in benchmark.seeds:
        path = results / f"seed-{seed}.json"
        record = json.loads(path.read_text()) if path.exists() else {"seed": seed, "strengths": STRENGTHS}
        of = knowledge(features, benchmark.per_group, seed)
        for evidence in ("background", "attribute"):
            cut = of.without_masks() if evidence == "attribute" else of.nothing_swapped()
            if evidence not in record and (evidence == "attribute" or of.train.background is not None):
                record[evidence] = curves(cut, evidence)
                write_record(path, record)
    draw(seed_records(results), results / "strength.png")


def draw(records: list[dict], path: Path) -> None:
    """Mean and range over seeds; the meta losses as the change from that without evidence."""
    kinds = [kind for kind in ("background", "attribute") if kind in records[0]]
    figure, axes = plt.subplots(2, len(kinds), figsize=(4.2 * len(kinds), 5.2), sharex=True, squeeze=False)
    for column, kind in zip(axes.T, kinds, strict=True):
        for name, colour in (("one step", "#b35806"), ("convergence", "#2166ac")):
            values = np.array([record[kind][name] for record in records])
            values = values / values[:, :1]
            column[0].plot(STRENGTHS, values.mean(0), color=colour, label=f"judged at {name}")
            column[0].fill_between(STRENGTHS, values.min(0), values.max(0), color=colour, alpha=0.2, linewidth=0)
        values = 100 * np.array([record[kind]["worst group"] for record in records])
        column[1].plot(STRENGTHS, values.mean(0), color="#333333")
        column[1].fill_between(STRENGTHS, values.min(0), values.max(0), color="#333333", alpha=0.2, linewidth=0)
        column[0].set_title(f"evidence: {kind}")
        column[1].set_xlabel("strength of the evidence")
    axes[0, 0].set_ylabel("meta loss, over that at 0")
    axes[1, 0].set_ylabel("worst group, validation, %")
    axes[0, 0].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
