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
from importlib.metadata import version
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from common import write_record
from families import FAMILIES, NUM_LABELS, Family
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import AutoModelForImageClassification, PreTrainedModel, PrinterCallback, ViTImageProcessor

from clp_hf import CLPTrainer, CLPTrainingArguments
from clp_hf.bilevel import TrainingPass, dual_attention, hypergradient, run_at
from clp_hf.modeling import find_classifier_head, load_image_processor, parameter_count

RESULTS = Path(__file__).parent / "results"
BATCH_SIZE = 4
STEP = 0.1
EXACT = 1e-6  # relative; float64 gives 1e-10 and better, but some models compute parts in float32
CPU_SECONDS = 600
ADDRESS_SPACE = 16 * 2**30

Answer = dict[str, object]


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
