"""How exact the hypergradient is under bf16 autocast, and whether the dual pass should leave it.

    python benchmarks/precision.py        # a few minutes on one core

The reference is the same hypergradient in float64. Rows: everything in float32; training, meta and dual pass under bf16
autocast, as `CLPTrainer` does; and the dual pass alone in float32. Each is the median over seeds of the relative error
and the smallest cosine, of random images, labels and perturbation network. Networks of timm with random weights, in
train mode, but for EfficientNet-Lite0: it is pretrained and its batch-norm statistics are frozen, as in the recipes.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clp_hf.bilevel import Recording, TrainingPass, hypergradient
from clp_hf.modeling import freeze_batch_norm_statistics, load_image_classifier
from clp_hf.utils.precision import at_least_float32

RESULTS = Path(__file__).parent / "results"
CLASSES, IMAGES, SIZE = 10, 16, 64
NETWORKS = {
    "resnet18": {},
    "vit_tiny_patch16_224": {"img_size": SIZE},
    "convnext_atto": {},
}
PRETRAINED = "tf_efficientnet_lite0"
# row: is autocast on in the training and meta pass, and in the dual pass?
ROWS = {"float32": (False, False), "bf16": (True, True), "bf16, dual pass in float32": (True, False)}


def build(name: str) -> nn.Module:
    """A classifier in train mode."""
    if name == PRETRAINED:
        module = load_image_classifier(name, id2label=dict(enumerate(map(str, range(CLASSES)))))
        freeze_batch_norm_statistics(module)
    else:
        model_args = NETWORKS[name]
        module = load_image_classifier(
            timm.create_model(name, num_classes=CLASSES, **model_args), model_args=model_args
        )
    return module.train()


def hypergradient_of(name: str, seed: int, passes: bool, dual: bool, dtype=torch.float32) -> Tensor:
    """dL_meta/dΩ as one vector in float64."""
    torch.manual_seed(seed)
    module = build(name)
    images, meta_images = torch.randn(2, IMAGES, 3, SIZE, SIZE)
    labels, meta_labels = torch.randint(CLASSES, (2, IMAGES))
    network = nn.Sequential(nn.Linear(CLASSES, 32), nn.Tanh(), nn.Linear(32, CLASSES)).to(dtype)
    module, images, meta_images = module.to(dtype), images.to(dtype), meta_images.to(dtype)

    def forward(images: Tensor, autocast: bool) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            return at_least_float32(module(pixel_values=images).logits)

    with Recording() as recording:
        logits = forward(images, passes)
    if passes != dual:  # what was recorded is of the other precision: only its random state is of use
        random_state, recording = recording.random_state, Recording()
        recording.random_state = random_state
    result = hypergradient(
        module,
        TrainingPass(lambda: forward(images, dual), logits, recording),
        lambda logits: F.cross_entropy(logits + network(logits.detach()), labels),
        lambda: F.cross_entropy(forward(meta_images, passes), meta_labels),
        list(network.parameters()),
        0.01,
    )
    return torch.cat([part.flatten().double() for part in result.total])


def errors(compute: Callable[[int], tuple[Tensor, Tensor]], seeds: int) -> dict[str, float]:
    """Median relative error and smallest cosine."""
    pairs = [compute(seed) for seed in range(seeds)]
    return {
        "error": statistics.median(float((found - exact).norm() / exact.norm()) for found, exact in pairs),
        "cosine": min(float(F.cosine_similarity(found, exact, dim=0)) for found, exact in pairs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    report = {}
    for name in (*NETWORKS, PRETRAINED):
        exact = [hypergradient_of(name, seed, False, False, torch.float64) for seed in range(args.seeds)]
        for row, (passes, dual) in ROWS.items():
            report[f"{name}, {row}"] = errors(
                lambda seed, name=name, passes=passes, dual=dual, exact=exact: (
                    hypergradient_of(name, seed, passes, dual),
                    exact[seed],
                ),
                args.seeds,
            )
    lines = ["| network, precision | relative error | smallest cosine |", "|---|---:|---:|"]
    lines += [f"| {name} | {row['error']:.1e} | {row['cosine']:.5f} |" for name, row in report.items()]
    RESULTS.joinpath("precision.json").write_text(json.dumps({"seeds": args.seeds, "rows": report}, indent=1) + "\n")
    RESULTS.joinpath("precision.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
