"""Which families of image classifiers CLP works with: one small member of each, random weights, no network.

    python benchmarks/compatibility.py                        # all that results/compatibility.json lacks
    python benchmarks/compatibility.py --families resnet      # these again

Four questions are asked of each family, independently:

- head: does `find_classifier_head` find the final linear layer?
- saves and loads: does `from_pretrained` after `save_pretrained` give the same logits?
- hypergradient: the relative error of the forward engine in float64, in training mode with dropout and batch
  statistics, against double backward; where an operator has no second derivative, against central differences of the
  meta loss along random directions in Ω (marked †, whose own error is some 1e-7). All weights are jittered first, so
  that branches that start at zero take part. Where the engine does not work, the error of `finite_difference`.
- training step: does one step of `CLPTrainer` with its default settings move both networks, to finite weights?

Every family is a forked process of its own, limited in CPU time and address space: whatever it does, the others are
asked. Writes results/compatibility.json after each, and the table in results/compatibility.md. (Linux)
"""

import argparse
import copy
import json
import multiprocessing
import resource
import signal
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from common import write_record
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import AutoModelForImageClassification, PreTrainedModel, PrinterCallback, ViTImageProcessor

from clp_hf import CLPTrainer, CLPTrainingArguments
from clp_hf.bilevel import TrainingPass, dual_attention, hypergradient, run_at
from clp_hf.modeling import find_classifier_head, load_image_classifier, load_image_processor, parameter_count

RESULTS = Path(__file__).parent / "results"
NUM_LABELS = 3
BATCH_SIZE = 4
STEP = 0.1
EXACT = 1e-6  # relative; float64 gives 1e-10 and better, but some models compute parts in float32
CPU_SECONDS = 600
ADDRESS_SPACE = 16 * 2**30

Answer = dict[str, object]


# ---- families --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Family:
    """One small member of a family.

    Attributes:
        library: timm or transformers.
        architecture: the name there.
        size: of its square images, in pixels.
        build: gives it with random weights.
    """

    library: str
    architecture: str
    size: int
    build: Callable[[], PreTrainedModel]


def _timm(architecture: str, size: int = 64, **model_args) -> Family:
    def build():
        return load_image_classifier(
            architecture, num_labels=NUM_LABELS, pretrained=False, image_size=size, model_args=model_args
        )

    return Family("timm", architecture, size, build)


def _fixed(architecture: str, size: int = 64, **model_args) -> Family:
    """An architecture that is built for one image size."""
    return _timm(architecture, size, img_size=size, **model_args)


def _transformers(name: str, size: int = 32, suffix: str = "", **config) -> Family:
    architecture = f"{name}ForImageClassification{suffix}"

    def build():
        model_class = getattr(transformers, architecture)
        return model_class(model_class.config_class(num_labels=NUM_LABELS, **config))

    return Family("transformers", architecture, size, build)


WINDOWS = {"window_size": 4, "embed_dim": 24, "depths": [1, 1, 1, 1]}
VIT = {"embed_dim": 48, "depth": 2, "num_heads": 3}
ENCODER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
PATCHES = {**ENCODER, "image_size": 32, "patch_size": 8}

FAMILIES = {
    # the modules of timm
    "beit": _fixed("beit_base_patch16_224", **VIT),
    "byoanet": _timm("lambda_resnet26t"),
    "byobnet": _timm("test_byobnet"),
    "cait": _fixed("cait_xxs24_224", depth=2),
    "coat": _fixed("coat_lite_tiny"),
    "convit": _fixed("convit_tiny", depth=3, local_up_to_layer=2),
    "convmixer": _timm("convmixer_768_32"),
    "convnext": _timm("test_convnext"),
    "cpubone": _timm("cpubone_nano"),
    "crossvit": _fixed("crossvit_tiny_240", 240),
    "csatv2": _timm("csatv2", 128),
    "cspnet": _timm("cs3darknet_s"),
    "cspnext": _timm("cspnext_tiny"),
    "davit": _timm("davit_tiny", depths=[1, 1, 1, 1], embed_dims=[16, 32, 64, 64], num_heads=[1, 2, 4, 4]),
    "deit": _fixed("deit3_small_patch16_224", **VIT),
    "deit_distilled": _fixed("deit_tiny_distilled_patch16_224", **VIT),
    "densenet": _timm("densenet121", growth_rate=8, block_config=[2, 2]),
    "dla": _timm("dla46_c"),
    "dpn": _timm("dpn48b"),
    "edgenext": _timm("edgenext_xx_small"),
    "efficientformer": _timm("efficientformer_l1", 224),
    "efficientformer_v2": _fixed("efficientformerv2_s0"),
    "efficientnet": _timm("test_efficientnet"),
    "efficientvim": _timm("efficientvim_m1"),
    "efficientvit_mit": _timm("efficientvit_b0"),
    "efficientvit_msra": _fixed("efficientvit_m0"),
    "eva": _fixed("eva02_tiny_patch14_224", 56, depth=2),
    "fasternet": _timm("fasternet_t0"),
    "fastvit": _timm("fastvit_t8"),
    "focalnet": _timm("focalnet_tiny_srf"),
    "gcvit": _fixed("gcvit_xxtiny"),
    "ghostnet": _timm("ghostnet_050"),
    "hardcorenas": _timm("hardcorenas_a", 128),
    "hgnet": _timm("hgnetv2_b0"),
    "hiera": _fixed("hiera_tiny_224", stages=[1, 1, 1, 1], embed_dim=24),
    "hieradet_sam2": _timm("hieradet_small", 128),
    "hrnet": _timm("hrnet_w18_small"),
    "iformer": _timm("iformer_t"),
    "inception_next": _timm("inception_next_atto"),
    "inception_resnet_v2": _timm("inception_resnet_v2", 96),
    "inception_v3": _timm("inception_v3", 80),
    "inception_v4": _timm("inception_v4", 96),
    "lcnetv2": _timm("lcnetv2_small"),
    "levit": _fixed("levit_128s"),
    "lowformer": _timm("lowformer_b0"),
    "mambaout": _timm("test_mambaout"),
    "maxxvit": _fixed("test_maxvit"),
    "metaformer": _timm("poolformer_s12"),
    "mlp_mixer": _fixed("gmlp_ti16_224"),
    "mobilenetv3": _timm("mobilenetv3_small_050"),
    "mobilenetv5": _timm("mobilenetv5_base"),
    "mobilevit": _timm("mobilevit_xxs"),
    "mvitv2": _fixed("mvitv2_tiny"),
    "naflexvit": _timm("naflexvit_base_patch16_gap", **VIT),
    "nest": _fixed("nest_tiny"),
    "nextvit": _timm("nextvit_small"),
    "nfnet": _timm("test_nfnet"),
    "pit": _fixed("pit_ti_224", depth=[1, 1, 1]),
    "pvt_v2": _timm("pvt_v2_b0"),
    "rdnet": _timm("rdnet_tiny"),
    "regnet": _timm("regnetx_002"),
    "repghost": _timm("repghostnet_050", 128),
    "repvit": _timm("repvit_m0_9"),
    "res2net": _timm("res2net50_48w_2s", layers=[1, 1, 1, 1]),
    "resnest": _timm("resnest14d"),
    "resnet": _timm("resnet10t"),
    "resnetv2": _timm("resnetv2_18"),
    "rexnet": _timm("rexnetr_100"),
    "selecsls": _timm("selecsls42"),
    "senet": _timm("legacy_seresnet18"),
    "sequencer": _timm("sequencer2d_s", layers=[1, 1, 1, 1], embed_dims=[24, 48, 48, 48], hidden_sizes=[6, 12, 12, 12]),
    "shvit": _timm("shvit_s1"),
    "sknet": _timm("skresnet18"),
    "starnet": _timm("starnet_s050"),
    "swiftformer": _timm("swiftformer_xs"),
    "swin_transformer": _fixed("swin_tiny_patch4_window7_224", **WINDOWS),
    "swin_transformer_v2": _fixed("swinv2_tiny_window8_256", **WINDOWS),
    "swin_transformer_v2_cr": _fixed("swinv2_cr_tiny_224", **WINDOWS),
    "tiny_vit": _timm("tiny_vit_5m_224"),
    "tnt": _fixed("tnt_s_patch16_224", depth=2),
    "tresnet": _timm("tresnet_m"),
    "twins": _fixed("twins_pcpvt_small", depths=[1, 1, 1, 1]),
    "vgg": _timm("vgg11", mlp_ratio=0.03125),
    "visformer": _fixed("visformer_tiny", depth=[1, 1, 1]),
    "vision_transformer": _fixed("test_vit"),
    "vision_transformer_hybrid": _fixed("vit_tiny_r_s16_p8_224", depth=2),
    "vision_transformer_relpos": _fixed("test_vit_relpos"),
    "vision_transformer_sam": _fixed("samvit_base_patch16_224", **VIT, global_attn_indexes=[1]),
    "vitamin": _fixed("vitamin_small_224"),
    "volo": _fixed("volo_d1_224"),
    "vovnet": _timm("ese_vovnet19b_slim"),
    "xception": _timm("legacy_xception", 96),
    "xception_aligned": _timm("xception41", 96),
    "xcit": _fixed("xcit_nano_12_p16_224", depth=2),
    # transformers
    "Beit": _transformers("Beit", **PATCHES, drop_path_rate=0.2),
    "Bit": _transformers("Bit", embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], num_groups=8),
    "CLIP": _transformers("CLIP", vision_config={**PATCHES}),
    "ConvNext": _transformers("ConvNext", depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 32]),
    "ConvNextV2": _transformers("ConvNextV2", depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 32]),
    "Cvt": _transformers("Cvt", embed_dim=[16, 32, 48], num_heads=[1, 2, 3], depth=[1, 2, 3]),
    "Data2VecVision": _transformers("Data2VecVision", **PATCHES),
    "DeiT": _transformers("DeiT", **PATCHES),
    "DeiTWithTeacher": _transformers("DeiT", suffix="WithTeacher", **PATCHES),
    "Dinov2": _transformers("Dinov2", **PATCHES),
    "Dinov2WithRegisters": _transformers("Dinov2WithRegisters", **PATCHES),
    "DonutSwin": _transformers(
        "DonutSwin", image_size=32, patch_size=2, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4
    ),
    "EfficientNet": _transformers("EfficientNet", 64, width_coefficient=0.25, depth_coefficient=0.2, hidden_dim=320),
    "FocalNet": _transformers(
        "FocalNet", image_size=32, patch_size=2, embed_dim=16, depths=[1, 1], focal_levels=[1, 1], focal_windows=[3, 3]
    ),
    "HGNetV2": _transformers("HGNetV2", 64),
    "Hiera": _transformers(
        "Hiera",
        64,
        image_size=[64, 64],
        embed_dim=16,
        depths=[1, 1, 1],
        num_heads=[1, 2, 4],
        masked_unit_size=[4, 4],
        num_query_pool=2,
    ),
    "IJepa": _transformers("IJepa", **PATCHES),
    "ImageGPT": _transformers("ImageGPT", n_embd=32, n_layer=2, n_head=2),
    "Levit": _transformers(
        "Levit",
        64,
        image_size=64,
        hidden_sizes=[16, 32, 48],
        num_attention_heads=[1, 2, 3],
        depths=[1, 1, 1],
        key_dim=[8, 8, 8],
    ),
    "LevitWithTeacher": _transformers(
        "Levit",
        64,
        suffix="WithTeacher",
        image_size=64,
        hidden_sizes=[16, 32, 48],
        num_attention_heads=[1, 2, 3],
        depths=[1, 1, 1],
        key_dim=[8, 8, 8],
    ),
    "MobileNetV1": _transformers("MobileNetV1", depth_multiplier=0.25, min_depth=4),
    "MobileNetV2": _transformers("MobileNetV2", depth_multiplier=0.25, min_depth=4),
    "MobileViT": _transformers(
        "MobileViT", 64, image_size=64, hidden_sizes=[24, 32, 40], neck_hidden_sizes=[8, 8, 16, 24, 32, 40, 80]
    ),
    "MobileViTV2": _transformers("MobileViTV2", 64, image_size=64, width_multiplier=0.25),
    "PoolFormer": _transformers("PoolFormer", hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1]),
    "PPLCNet": _transformers("PPLCNet", 64, scale=0.25),
    "Pvt": _transformers(
        "Pvt", 64, image_size=64, hidden_sizes=[16, 32, 32, 32], depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 2, 2]
    ),
    "PvtV2": _transformers(
        "PvtV2", 64, image_size=64, hidden_sizes=[16, 32, 32, 32], depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 2, 2]
    ),
    "RegNet": _transformers(
        "RegNet", embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], groups_width=8
    ),
    "ResNet": _transformers("ResNet", embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1]),
    "Segformer": _transformers(
        "Segformer", 64, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 2, 2]
    ),
    "Siglip": _transformers("Siglip", vision_config=PATCHES),
    "SwiftFormer": _transformers("SwiftFormer", 64, image_size=64, embed_dims=[16, 24, 32, 40], depths=[1, 1, 1, 1]),
    "Swin": _transformers(
        "Swin", image_size=32, patch_size=2, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4
    ),
    "Swinv2": _transformers(
        "Swinv2", image_size=32, patch_size=2, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4
    ),
    "TextNet": _transformers("TextNet", 64),
    "ViT": _transformers("ViT", **PATCHES),
    "ViTMSN": _transformers("ViTMSN", **PATCHES),
}


# ---- the questions ---------------------------------------------------------------------------------------------------


class Images(Dataset):
    """Noise with a rectangle for a foreground, as `CLPTrainer` takes it."""

    def __init__(self, count: int, size: int):
        self.labels = [index % NUM_LABELS for index in range(count)]
        self.size = size

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        mask = torch.zeros(1, self.size, self.size)
        mask[:, self.size // 4 : self.size // 2, self.size // 4 : self.size // 2] = 1
        pixel_values = torch.randn(3, self.size, self.size, generator=generator)
        return {"pixel_values": pixel_values, "labels": self.labels[index], "mask": mask}


class Problem:
    """A classifier, a perturbation network, a training and a meta batch, in float64 and training mode."""

    def __init__(self, model: nn.Module, size: int):
        torch.manual_seed(0)
        self.model = copy.deepcopy(model).double().train()
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter += 0.02 * torch.randn_like(parameter)
        self.network = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, NUM_LABELS)).double()
        self.images, self.meta_images = torch.randn(2, BATCH_SIZE, 3, size, size, dtype=torch.float64)
        self.characteristics = torch.randn(BATCH_SIZE, 5, dtype=torch.float64)
        self.labels = torch.arange(BATCH_SIZE) % NUM_LABELS

    def training_logits(self) -> Tensor:
        return self.model(pixel_values=self.images).logits

    def inner_loss(self, logits: Tensor) -> Tensor:
        return F.cross_entropy(logits + self.network(self.characteristics), self.labels)

    def meta_loss(self) -> Tensor:
        torch.manual_seed(2)
        return F.cross_entropy(self.model(pixel_values=self.meta_images).logits, self.labels)

    @dual_attention()
    def hypergradient(self, engine: str) -> Tensor:
        problem = copy.deepcopy(self)  # a training pass moves batch-norm statistics
        torch.manual_seed(1)
        hyperparameters = list(problem.network.parameters())
        training_pass = TrainingPass.run(problem.training_logits)
        result = hypergradient(
            problem.model, training_pass, problem.inner_loss, problem.meta_loss, hyperparameters, STEP, engine
        )
        return nn.utils.parameters_to_vector(result.total)

    @dual_attention()
    def meta_loss_after_a_step(self, hyperparameters: Tensor) -> Tensor:
        """The definition: one look-ahead step under these Ω, then the meta loss."""
        problem = copy.deepcopy(self)
        nn.utils.vector_to_parameters(hyperparameters, problem.network.parameters())
        torch.manual_seed(1)
        parameters = dict(problem.model.named_parameters())
        gradients = torch.autograd.grad(
            problem.inner_loss(problem.training_logits()), list(parameters.values()), materialize_grads=True
        )
        lookahead = {
            name: parameter.detach() - STEP * gradient
            for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True)
        }
        with torch.no_grad():
            return run_at(problem.model, lookahead, problem.meta_loss)

    def central_differences(self, directions: Tensor, epsilon: float = 1e-7) -> Tensor:
        """The derivative of the meta loss along each of `directions` (k, |Ω|), without any formula: (k,)."""
        center = nn.utils.parameters_to_vector(self.network.parameters()).detach()
        return torch.stack(
            [
                self.meta_loss_after_a_step(center + epsilon * direction)
                - self.meta_loss_after_a_step(center - epsilon * direction)
                for direction in directions
            ]
        ) / (2 * epsilon)


def head(model: PreTrainedModel, family: Family) -> Answer:
    name, layer = find_classifier_head(model, torch.randn(2, 3, family.size, family.size))
    return {"ok": True, "name": name, "features": layer.in_features}


@torch.no_grad()
def saves_and_loads(model: PreTrainedModel, family: Family) -> Answer:
    images = torch.randn(2, 3, family.size, family.size)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        loaded = AutoModelForImageClassification.from_pretrained(folder)
    difference = (loaded.eval()(images).logits - model.eval()(images).logits).abs().max().item()
    return {"ok": difference < 1e-5, "reason": None if difference < 1e-5 else f"logits differ by {difference:.1e}"}


def exactness(model: PreTrainedModel, family: Family) -> Answer:
    problem = Problem(model, family.size)
    answer = {"oracle": "double backward"}
    try:
        oracle = problem.hypergradient("double_backward")
        project = nn.Identity()
    except RuntimeError as error:
        generator = torch.Generator().manual_seed(0)
        directions = torch.randn(3, sum(p.numel() for p in problem.network.parameters()), generator=generator).double()
        oracle = problem.central_differences(directions)
        project = directions.matmul
        answer = {"oracle": "central differences", "double_backward": reason(error)}

    def relative_error(engine: str) -> float:
        return ((project(problem.hypergradient(engine)) - oracle).norm() / oracle.norm()).item()

    try:
        answer["error"] = relative_error("forward")
    except RuntimeError as error:
        return answer | {"ok": False, "reason": reason(error), "finite_difference": relative_error("finite_difference")}
    exact = answer["error"] < EXACT
    return answer | {"ok": exact, "reason": None if exact else f"relative error {answer['error']:.1e}"}


def training_step(model: PreTrainedModel, family: Family) -> Answer:
    if family.library == "timm":
        processor = load_image_processor(family.architecture, model)
    else:
        processor = ViTImageProcessor(size={"height": family.size, "width": family.size})
    with tempfile.TemporaryDirectory() as folder:
        trainer = CLPTrainer(
            model,
            CLPTrainingArguments(
                folder,
                max_steps=1,
                per_device_train_batch_size=BATCH_SIZE,
                learning_rate=1e-3,
                perturbation_learning_rate=1e-2,
                use_cpu=True,
                report_to=[],
                save_strategy="no",
                disable_tqdm=True,
            ),
            train_dataset=Images(4 * BATCH_SIZE, family.size),
            meta_dataset=Images(2 * NUM_LABELS, family.size),
            processing_class=processor,
        )
        trainer.remove_callback(PrinterCallback)
        vectors = [nn.utils.parameters_to_vector(m.parameters()) for m in (model, trainer.perturbation_network)]
        before = [vector.detach().clone() for vector in vectors]
        trainer.train()
    after = [nn.utils.parameters_to_vector(m.parameters()) for m in (model, trainer.perturbation_network)]
    for what, old, new in zip(("the classifier", "the perturbation network"), before, after, strict=True):
        if not torch.isfinite(new).all():
            return {"ok": False, "reason": f"{what} has non-finite weights"}
        if torch.equal(old, new):
            return {"ok": False, "reason": f"{what} did not move"}
    return {"ok": True}


QUESTIONS = {
    "head": head,
    "saves_and_loads": saves_and_loads,
    "hypergradient": exactness,
    "training_step": training_step,
}


def reason(error: BaseException) -> str:
    """The first sentence of an error."""
    sentence = " ".join(str(error).split()).split(". ")[0]
    return f"{type(error).__name__}: {sentence[:300]}"


def examine(family: Family, tell: Callable[[Answer], None] = lambda record: None) -> Answer:
    """Ask every question of one family.

    Args:
        family: see there.
        tell: gets the record so far before every question, which may be the last thing this process does.

    Returns:
        Architecture, size, number of weights, and for every question an answer with `ok` and, where not, the `reason`.
    """
    record: Answer = {"library": family.library, "architecture": family.architecture, "image_size": family.size}
    tell(record)
    torch.manual_seed(0)
    try:
        model = family.build()
    except Exception as error:
        return record | {"not_built": reason(error)}
    record["parameters"] = parameter_count(model)
    for name, question in QUESTIONS.items():
        tell(record)
        try:
            record[name] = question(model, family)
        except Exception as error:
            record[name] = {"ok": False, "reason": reason(error)}
            traceback.print_exc(limit=-3)
    return record


# ---- one process each, the table -------------------------------------------------------------------------------------


def examine_apart(family: Family) -> Answer:
    """`examine` in a process of its own; what it was doing when a limit ended it is the reason."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def run():
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
        sender.send(examine(family, sender.send))

    process = context.Process(target=run)
    process.start()
    sender.close()
    record: Answer = {}
    try:
        while True:
            record = receiver.recv()
    except EOFError:
        process.join()
    if process.exitcode:
        cause = signal.Signals(-process.exitcode).name if process.exitcode < 0 else f"exit status {process.exitcode}"
        for name in QUESTIONS:
            record.setdefault(name, {"ok": False, "reason": f"ended by {cause} (limit: {CPU_SECONDS} CPU seconds)"})
    return record


def table(records: dict[str, Answer]) -> str:
    lines = [
        "| family | architecture, pixels | weights, M | head | saves and loads | hypergradient | training step |",
        "|---|---|---:|---|---|---|---|",
    ]
    notes = []
    for name, record in records.items():
        cells = [f"`{record['architecture']}`, {record['image_size']}", f"{record.get('parameters', 0) / 1e6:.2f}"]
        for question in QUESTIONS:
            answer = record.get(question, {"ok": False, "reason": record.get("not_built")})
            cell = "yes" if answer["ok"] else "**no**"
            if question == "hypergradient" and "error" in answer:
                cell = f"{answer['error']:.0e}" + ("†" if answer["oracle"] == "central differences" else "")
            if not answer["ok"]:
                notes.append(f"{name}, {question.replace('_', ' ')}: {answer['reason']}")
                if "finite_difference" in answer:
                    notes[-1] += f"; `finite_difference` has error {answer['finite_difference']:.0e}"
                cell += f" [{len(notes)}]"
            cells.append(cell)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    numbered = "\n".join(f"{number}. {note}" for number, note in enumerate(notes, start=1))
    works = sum(all(record.get(question, {}).get("ok") for question in QUESTIONS) for record in records.values())
    versions = ", ".join(f"{package} {version(package)}" for package in ("torch", "timm", "transformers"))
    return (
        f"# Compatibility\n\n{works} of {len(records)} families pass all four; {versions}. `python "
        f"benchmarks/compatibility.py`; its first lines say what was asked.\n\n"
        + "\n".join(lines)
        + f"\n\n{numbered}\n"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", nargs="+", choices=FAMILIES, metavar="FAMILY", help="Ask these again.")
    parser.add_argument("--results", type=Path, default=RESULTS, help="Folder of compatibility.json and .md.")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    path = args.results / "compatibility.json"
    records = json.loads(path.read_text()) if path.exists() else {}
    for name in args.families or [name for name in FAMILIES if name not in records]:
        records[name] = examine_apart(FAMILIES[name])
        answers = [records[name].get(question, {}).get("ok") for question in QUESTIONS]
        print(name, answers, records[name].get("not_built", ""), flush=True)
        records = {known: records[known] for known in FAMILIES if known in records}
        write_record(path, records)
        (args.results / "compatibility.md").write_text(table(records))


if __name__ == "__main__":
    main()
