"""Help that is quick and is that of the recipe; options and values that nobody knows; flags beside a settings file."""

import io
import sys
from contextlib import redirect_stdout
from dataclasses import fields

import pytest

from clp_hf import CLPTrainingArguments
from clp_hf.bilevel import ENGINES, LOOKAHEADS, SCOPES
from clp_hf.causal import COUNTERFACTUAL_INFILLS, FACTUAL_INFILLS
from clp_hf.experiment import METHODS, REPAIRS, STAGED, DataArguments, MethodArguments, ModelArguments, parse_arguments
from clp_hf.experiment.help import PAGES, HelpShown, render, store
from clp_hf.experiment.help_pages import all_pages
from clp_hf.experiment.launch import recipes, run_here
from clp_hf.experiment.settings import without_settings
from clp_hf.experiment.words import CHOICES, GROUPS, OTHER_NAMES, OTHER_VALUES, SHORT
from clp_hf.hub.record import own_fields
from clp_hf.perturbation import PERTURBED_LOGITS
from clp_hf.perturbation.evidence.family import EVIDENCES
from clp_hf.utils.names import did_you_mean

LINES = 90  # of a short help, without a terminal
TRAINING = (MethodArguments, DataArguments, ModelArguments, CLPTrainingArguments)
REGISTRIES = {
    "method": {*METHODS, *STAGED, *REPAIRS},
    "lookahead": LOOKAHEADS,
    "lookahead_scope": SCOPES,
    "hypergradient": ENGINES,
    "counterfactual_infills": COUNTERFACTUAL_INFILLS,
    "factual_infills": FACTUAL_INFILLS,
    "evidence": EVIDENCES,
    "perturbed_logits": PERTURBED_LOGITS,
}


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture(scope="module")
def pages():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", list(sys.argv))
        patch.setattr(sys, "path", list(sys.path))
        yield all_pages()


@pytest.fixture
def parse(monkeypatch, tmp_path):
    """Read a command line as waterbirds does, here with other arguments."""

    def parse(*words, classes=TRAINING):
        words = [*words, "--output_dir", str(tmp_path), "--use_cpu", "true"]
        monkeypatch.setattr(sys, "argv", ["clp-hf train waterbirds", *words])
        return parse_arguments(classes, "Birds.", {"learning_rate": 0.5, "seed": 7})

    return parse


def test_the_stored_pages_are_those_of_the_recipes(pages):
    """`python -m clp_hf.experiment.help_pages` writes them anew."""
    assert PAGES.read_text(encoding="utf-8") == store(pages)


def test_the_short_help_is_short_and_tells_of_every_option_of_our_own(pages):
    own = {item.name for part in (DataArguments, ModelArguments, MethodArguments) for item in fields(part)}
    own |= set(own_fields(CLPTrainingArguments)) - set(CLPTrainingArguments.DEPRECATED)
    for name in set(recipes()) - {"repair", "hsfm"}:
        text = render(pages[name], width=120)
        assert len(text.splitlines()) <= LINES
        words = set(text.split())
        assert {f"--{option}" for option in own} <= words
        flags = {word for word in words if word.startswith("--")} - {"--help-all"}
        assert not {flag for flag in flags if flag.startswith("--no_") or "-" in flag[2:]}
        titles = [line[:-1] for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
        assert titles.index("method") < titles.index("data") < titles.index("look-ahead") < titles.index("training")


def test_defaults_are_the_recipes(pages):
    assert pages["waterbirds"].options["learning_rate"].default == "0.002"
    assert pages["celeba"].options["method"].default == "meta_lp"
    assert pages["waterbirds --preset paper"].options["num_train_epochs"].default == "300"
    assert pages["repair --method dfr"].options["output_dir"].default == "runs/repair/dfr"


def test_all_options_are_behind_help_all(pages):
    text = render(pages["waterbirds"], everything=True)
    assert all(text.count(f"\n  --{item.name}") for item in fields(CLPTrainingArguments) if item.init)
    assert text.index("\nthe Trainer's:") > text.index("--lookahead_ridge")


def test_stored_and_asked_help_are_the_same(pages, capsys):
    run_here("waterbirds", ["--help"], "clp-hf train waterbirds")
    assert capsys.readouterr().out == render(pages["waterbirds"]) + "\n"
    assert len(render(pages["waterbirds"], width=80).splitlines()) < 120


def test_words_are_of_options_and_values_that_there_are(pages):
    known = {name for page in pages.values() for name in page.options}
    assert {name for group in GROUPS.values() for names in group for name in names} <= known
    assert set(SHORT) <= known
    assert set(CHOICES) <= known
    for name, registry in REGISTRIES.items():
        assert set(CHOICES[name]) == set(registry)
    outside = {"batch_size", "output"}  # of other commands
    assert {name for names in OTHER_NAMES.values() for name in names} <= known | outside
    assert set(OTHER_VALUES["method"].values()) <= {*METHODS, *STAGED, *REPAIRS}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--epochs", "3"], "Did you mean '--num_train_epochs'"),
        (["--lr", "3"], "Did you mean '--learning_rate'"),  # argparse finds it ambiguous
        (["--batch-size", "3"], "Did you mean '--per_device_train_batch_size'"),
        (["--Backbone=x"], "Did you mean '--model_name_or_path'"),
        (["--meta_samplse", "3"], "Did you mean '--meta_samples'"),
        (["--lookahead_s", "head", "--per_device", "3"], "It may be --per_device_train_batch_size, --per_device_eval"),
        (["--method", "ERM"], "--method is 'ERM', expected one of erm, .*Did you mean 'erm'"),
        (["--method", "baseline"], "Did you mean 'erm'"),
        (["--lr_scheduler_type", "cosin"], "expected one of linear.*Did you mean 'cosine'"),
        (["--lookahead", "mach"], "lookahead is 'mach'; choose one of .*Did you mean 'match'"),
        (["--evidence", "atribute"], "Did you mean 'attribute'"),
        (["--factual_infills", "mixrand"], "Did you mean 'mix_rand'"),
        (["--seed", "x"], "--seed is 'x', expected a whole number"),
        (["--learning_rate", "fast"], "--learning_rate is 'fast', expected a number"),
        (["--compare", "maybe"], "--compare is 'maybe', expected true or false"),
        (["--compare", "mine.yaml"], "A settings file stands right behind the recipe"),
        (["--seed"], "--seed: expected one argument"),
        (["a.yaml", "b.json"], "one settings file at most, found a.yaml and b.json"),
    ],
)
def test_what_nobody_knows(parse, words, message):
    with pytest.raises(ValueError, match=message):
        parse(*words)


def test_what_parsed_before_parses(parse):
    method, data, model, training = parse(
        "--no_pretrained", "--image-size", "32", "--compare", "--lr_decay_at", "0.5", "0.7", "--meta-samples=3",
        "--resume_from_checkpoint",
    )  # fmt: skip
    assert (model.pretrained, data.image_size, method.compare) == (False, 32, True)
    assert (training.lr_decay_at, training.meta_samples) == ([0.5, 0.7], 3)
    assert training.resume_from_checkpoint == "last"


@pytest.mark.parametrize("before", [True, False])
def test_flags_go_before_the_file_and_the_file_before_defaults(parse, tmp_path, before):
    path = tmp_path / "mine.yaml"
    path.write_text("recipe: waterbirds\nlearning_rate: 1e-3\nfactual_infills: [shuffle]\npretrained: false\nseed: 1\n")
    flags = ["--seed", "3", "--weight_decay", "0.1"]
    words = [str(path), *flags] if before else [*flags, str(path)]
    method, _, model, training = parse(*words)
    assert (training.seed, training.learning_rate, training.weight_decay) == (3, 1e-3, 0.1)
    assert (training.factual_infills, model.pretrained, method.method) == (["shuffle"], False, "clp")


def test_a_file_may_give_what_is_required(monkeypatch, tmp_path):
    (tmp_path / "masks.yaml").write_text("dataset_name: birds\nmax_images: 3\n")
    from clp_hf.segmentation import MaskArguments

    monkeypatch.setattr(sys, "argv", ["clp-hf masks", str(tmp_path / "masks.yaml"), "--max_images", "5"])
    (args,) = parse_arguments((MaskArguments,), "", {})
    assert (args.dataset_name, args.max_images) == ("birds", 5)
    monkeypatch.setattr(sys, "argv", ["clp-hf masks", "--max_images", "5"])
    with pytest.raises(ValueError, match="clp-hf masks: the following arguments are required: --dataset_name\\."):
        parse_arguments((MaskArguments,), "", {})


def test_a_file_of_a_flag_is_none_of_settings():
    assert without_settings(["--flip_map", "a.json", "--noise", "flip"])[0] is None
    assert without_settings(["x.yml", "--flip_map", "a.json"]) == ("x.yml", ["--flip_map", "a.json"])


def test_a_wrong_value_in_a_file_is_told_as_a_wrong_flag_is(parse, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("method: gorup_dro")
    with pytest.raises(ValueError, match=r"mine.yaml': method is 'gorup_dro', expected one of .*mean 'group_dro'"):
        parse(str(path))
    path.write_text("epochs: 3")
    with pytest.raises(ValueError, match=r"mine.yaml': 'epochs' is no option of waterbirds. Did you mean 'num_train_e"):
        parse(str(path))


def test_help_of_arguments_of_somebody_else(parse):
    output = io.StringIO()
    with redirect_stdout(output), pytest.raises(HelpShown):
        parse("--help", classes=(ModelArguments, CLPTrainingArguments))
    assert "(default: 0.5)" in output.getvalue()


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("Worst-Group", ["accuracy", "worst_group_accuracy"], "worst_group_accuracy"),
        ("decay", ["seed", "weight_decay"], "weight_decay"),
        ("ERM", ["clp", "erm"], "erm"),
        ("zzz", ["clp"], None),
        ("", ["clp"], None),
    ],
)
def test_did_you_mean(name, known, meant):
    assert did_you_mean(name, known) == ("" if meant is None else f" Did you mean {meant!r}?")
