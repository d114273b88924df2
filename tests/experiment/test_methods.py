"""A method's settings are checked as a user's are, and none that was asked for is ignored."""

import sys

import pytest

from clp_hf import CLPTrainingArguments
from clp_hf.experiment import METHODS, MethodArguments, configured, run_recipe
from clp_hf.experiment.arguments import read_arguments
from clp_hf.experiment.methods import check_given


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_valid_by_itself_and_changes_nothing_else(name):
    args = CLPTrainingArguments("out", hub_token="secret", learning_rate=0.5, report_to="none")
    method = configured(args, METHODS[name], output_dir="own")
    assert (method.hub_token, method.learning_rate, method.output_dir) == ("secret", 0.5, "own")
    assert {setting: getattr(method, setting) for setting in METHODS[name]} == METHODS[name]
    assert args.output_dir == "out"


def test_a_contradiction_with_a_method_names_both():
    args = CLPTrainingArguments("out", class_prior=True)
    with pytest.raises(ValueError, match=r"meta_network='weight' perturbs no logits, and goes without class_prior"):
        configured(args, METHODS["meta_weight_net"])
    with pytest.raises(TypeError, match="no_setting"):
        configured(args, {"no_setting": 1})


@pytest.mark.parametrize(
    ("names", "given", "message"),
    [
        (["erm"], {"class_prior": True}, "--class_prior True was given, but --method erm learns nothing"),
        (["focal"], {"training_loss": "ldam"}, "--method focal sets training_loss='focal'"),
        (["erm"], {"meta_every": 2}, "--method erm sets meta_every=0"),
        (["meta_lp"], {"evidence": ["background"]}, r"--method meta_lp sets evidence=\[\]"),
        (["meta_lp"], {"background_evidence": True}, r"--method meta_lp sets evidence=\[\]"),
        (["erm"], {"evidence": ["bias"]}, "--method erm learns nothing"),
        (
            ["background_swap"],
            {"train_infills": ["random"]},
            r"--method background_swap sets train_infills=\['mix_rand'\]",
        ),
        (["background_swap"], {"class_prior": True}, "--method background_swap learns nothing from a meta set"),
        (["erm", "meta_lp"], {"saliency_weight": 1.0}, "--method erm learns nothing.*; --method meta_lp sets"),
    ],
)
def test_what_would_be_ignored_is_refused(names, given, message):
    with pytest.raises(ValueError, match=message):
        check_given(names, given)


@pytest.mark.parametrize(
    ("names", "given"),
    [
        (["erm", "clp"], {"class_prior": True}),  # one of them has a use for it
        (["erm"], {"evidence": ["none"], "background_evidence": False, "meta_batch_size": 8, "learning_rate": 0.1}),
        (["clp"], {"meta_every": 0, "training_loss": "focal"}),
        (["focal"], {"training_loss": "focal"}),
        *(([name], {"train_infills": ["mix_rand"]}) for name in METHODS),  # of every method
    ],
)
def test_what_is_used_or_off_is_taken(names, given):
    check_given(names, given)


def test_it_is_found_out_before_the_data_is_read(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["recipe", "--method", "meta_weight_net", "--class_prior", "true"])

    def build(*args):
        raise AssertionError("the data was read")

    with pytest.raises(ValueError, match="goes without class_prior"):
        run_recipe(MethodArguments, "A recipe.", {"output_dir": "out"}, build)


def test_given_arguments_are_told_from_defaults(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["recipe", "--method", "erm", "--seed", "42"])
    (recipe, args), given = read_arguments((MethodArguments, CLPTrainingArguments), "", {"output_dir": "runs/x"})
    assert given == {"method": "erm", "seed": 42}
    assert (recipe.method, args.output_dir) == ("erm", "runs/x")
