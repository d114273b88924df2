"""Evidence of every kind in training: what it needs, what it finds, how it is resumed."""

import pytest
import torch
from conftest import Squares, resnet, vit
from torch.utils.data import Subset

from clp_hf import CLPTrainingArguments

META_LP = {"counterfactual_infills": [], "factual_infills": []}
EVIDENCES = [["attribute"], ["bias"], ["background", "attribute", "bias"]]


def parameters(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def state(trainer):
    parts = [trainer.model, trainer.perturbation_network, *trainer.learner.evidence]
    tensors = [value for part in parts for value in part.state_dict().values()]
    memories = [part.memory.read() for part in trainer.learner.evidence if part.memory is not None]
    tensors += [value for memory in memories for value in memory.values()]
    return torch.cat([value.double().flatten() for value in tensors])


def logged(trainer, name):
    return [entry[name] for entry in trainer.state.log_history if name in entry]


# ---- the setting -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ([], []),
        (["none"], []),
        ("none", []),
        ("bias", ["bias"]),
        (["bias", "background", "bias"], ["background", "bias"]),
    ],
)
def test_names_are_each_once_and_in_one_order(asked, found):
    assert CLPTrainingArguments("out", evidence=asked).evidence == found


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["backgrond"], "expected any of background, attribute, bias, or none alone. Did you mean 'background'?"),
        (["none", "bias"], "'none' stands alone"),
    ],
)
def test_unknown_names_are_refused(asked, message):
    with pytest.raises(ValueError, match=message):
        CLPTrainingArguments("out", evidence=asked)


def test_none_alone_is_no_infill():
    args = CLPTrainingArguments("out", counterfactual_infills=["none"], factual_infills=["none"], evidence=["bias"])
    assert not args.needs_masks


@pytest.mark.parametrize(
    ("old", "evidence", "found"),
    [
        (True, [], ["background"]),
        (True, ["bias"], ["background", "bias"]),
        (False, ["background"], []),
        (False, ["background", "bias"], ["bias"]),
    ],
)
def test_the_name_of_before_is_taken_and_told(old, evidence, found):
    with pytest.warns(FutureWarning, match="background_evidence is deprecated"):
        args = CLPTrainingArguments("out", background_evidence=old, evidence=evidence)
    assert (args.evidence, args.background_evidence) == (found, None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"evidence": ["background"], **META_LP}, "'attribute' and 'bias' do without"),
        ({"evidence": ["bias"], "perturb_meta_logits": True}, "set perturb_meta_logits=False"),
        ({"evidence_network": "frozen"}, "evidence_network is 'frozen'; choose one of current, initial"),
        ({"evidence_every": 0}, "evidence_every is 0; expected more than 0"),
        ({"characteristics": ["loss", "bias_margin"]}, "bias_margin, which come with `evidence`"),
    ],
)
def test_settings_that_contradict_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        CLPTrainingArguments("out", **settings)


# ---- the data --------------------------------------------------------------------------------------------------------


def regrouped(groups, length=24):
    """Squares whose group is that of `groups(label, ground)`."""
    data = Squares(length)
    data.group = [groups(label, group % 2) for label, group in zip(data.labels, data.group, strict=True)]
    return data


LABELS_ONLY = {"train_dataset": Squares(60, columns=()), **META_LP}
BAD_DATA = {
    "no masks, but groups": (
        {"train_dataset": Squares(60, columns=("group",)), "meta_dataset": Squares(12), "evidence": ["background"]},
        r"a `mask` for every training image.*goes evidence=\['attribute'\], which needs groups of the meta images or "
        r"evidence=\['bias'\], which needs nothing",
    ),
    "no groups, but masks": (
        {"train_dataset": Squares(60, columns=("mask",)), "evidence": ["attribute"]},
        r"the `group` of every meta image.*goes evidence=\['background'\]",
    ),
    "labels only": ({**LABELS_ONLY, "evidence": ["attribute"]}, r"they have none. With the data at hand goes evidence="
                    r"\['bias'\]"),
    "groups of the attribute alone": (
        {"meta_dataset": regrouped(lambda label, ground: ground), "evidence": ["attribute"]},
        "groups that are pairs of class and attribute.*found 0 of class 0, 1 of class 0",
    ),
    "a group a class": (
        {"train_dataset": regrouped(lambda label, ground: label, 60), "evidence": ["attribute"]},
        "every class is one group",
    ),
    "a value that the meta set lacks": (
        {"meta_dataset": Subset(Squares(24), [0, 1, 2, 6, 7, 8]), "evidence": ["attribute"]},
        r"of value 1 \(group 1, 3, 5\) there is none",
    ),
    "a value that it has once": (
        {"meta_dataset": Subset(Squares(24), [0, 1, 2, 6, 7, 8, 3]), "evidence": ["attribute"]},
        r"of value 1 \(group 1, 3, 5\) there is one. Give",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("settings", "message"), BAD_DATA.values(), ids=BAD_DATA)
def test_data_that_lack_what_evidence_needs_are_refused(make_trainer, settings, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(**settings)


# ---- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("evidence", EVIDENCES, ids="+".join)
@pytest.mark.parametrize(
    "settings",
    [
        {"evidence_every": 2},
        {"evidence_every": 2, "gradient_accumulation_steps": 2, "lookahead_scope": "head"},
        {"bf16": True, "evidence_every": 1},
        {"train_infills": ["mix_rand"], "evidence_every": 1},
        {"lookahead": "converged", "evidence_every": 2},
        {"evidence_network": "initial", "evidence_every": 2},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_it_trains_and_tells_how_often_it_agrees(make_trainer, evidence, settings):
    trainer = make_trainer(evidence=evidence, **settings)
    trainer.train()
    assert torch.isfinite(state(trainer)).all()
    for name in evidence:
        shares = logged(trainer, f"evidence_{name}_agreement")
        assert len(shares) == 4
        assert all(0 <= share <= 1 for share in shares)
        assert max(shares) > 0
    assert trainer.perturbation_network.num_evidences == len(evidence)
    assert trainer.perturbation_network.recent[0].shape[1] == 10 + len(evidence)


@pytest.mark.parametrize("network", ["current", "initial"])
@pytest.mark.parametrize("evidence", EVIDENCES, ids="+".join)
def test_resumed_equals_uninterrupted(make_trainer, tmp_path, evidence, network):
    settings = {
        "evidence": evidence, "evidence_network": network, "evidence_every": 2, "train_infills": ["mix_rand"],
        "save_strategy": "steps",
        "save_steps": 3, "max_steps": 7,
    }  # fmt: skip
    whole = make_trainer(vit(hidden_dropout_prob=0.1), **settings)
    whole.train()
    resumed = make_trainer(vit(hidden_dropout_prob=0.1), **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-3"))
    assert torch.equal(state(whole), state(resumed))


def test_the_initial_network_is_as_it_was_before_training(make_trainer):
    trainer = make_trainer(evidence=["attribute"], evidence_network="initial")
    before = parameters(trainer.model).clone()
    trainer.train()
    kept = trainer.learner.evidence.network.module
    assert torch.equal(parameters(kept), before)
    assert not torch.equal(parameters(trainer.model), before)
    assert not kept.training


def test_a_checkpoint_keeps_the_initial_network(make_trainer, tmp_path):
    """The script that resumes may build another one."""
    settings = {"evidence": ["bias"], "evidence_network": "initial", "save_strategy": "steps", "save_steps": 3}
    first = make_trainer(resnet(3), **settings)
    kept = first.learner.evidence.network.module.state_dict()
    first.train()
    second = make_trainer(resnet(3, seed=1), **settings)
    second.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-3"))
    found = second.learner.evidence.network.module.state_dict()
    assert all(torch.equal(found[name], value) for name, value in kept.items())


def test_a_probe_no_better_than_chance_is_told_of(make_trainer):
    blind = Squares(24)
    blind.group = [2 * label + torch.tensor([0, 1, 1, 0])[index % 4].item() for index, label in enumerate(blind.labels)]
    trainer = make_trainer(meta_dataset=blind, evidence=["attribute"], **META_LP)
    with pytest.warns(UserWarning, match=r"of the 24 meta images a probe tells the attribute of \d+% .*chance \(50%\)"):
        trainer.train()


class Birds(torch.utils.data.Dataset):
    """Small squares of two brightnesses, the class, on grounds of two colours, the attribute; nothing else is known."""

    def __init__(self, groups, seed):
        self.group = groups
        self.labels = [group // 2 for group in groups]
        self.seed = seed

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(self.seed + index)
        pixels = 0.3 * torch.randn(3, 16, 16, generator=generator)
        pixels[0] += 0.6 * (self.group[index] % 2 - 0.5)
        top, left = torch.randint(0, 8, (2,), generator=generator).tolist()
        pixels[1, top : top + 8, left : left + 8] += 0.4 * (self.labels[index] - 0.5)
        return {"pixel_values": pixels, "labels": self.labels[index], "group": self.group[index]}


def test_without_masks_the_attribute_lifts_the_worst_group(make_trainer):
    train = Birds(([0] * 19 + [1] + [3] * 19 + [2]) * 16, 0)
    meta, test = Birds([0, 1, 2, 3] * 10, 10_000), Birds([0, 1, 2, 3] * 100, 20_000)

    def worst_group(**settings):
        trainer = make_trainer(
            resnet(2), train, meta_dataset=meta, max_steps=100, per_device_train_batch_size=32, learning_rate=2e-3,
            optim="adamw_torch", logging_steps=50, **META_LP, **settings,
        )  # fmt: skip
        trainer.train()
        right = torch.from_numpy(trainer.predict(test).predictions).argmax(-1) == torch.tensor(test.labels)
        groups = torch.tensor(test.group)
        return min(right[groups == group].float().mean().item() for group in range(4))

    plain = worst_group(meta_every=0)
    assert worst_group(evidence=["attribute"], lookahead_scope="head") > plain + 0.1
