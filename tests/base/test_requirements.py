"""What a trainer refuses, or warns of, when it is built."""

import logging

import torch
from conftest import vit

from clp_hf.metrics import GroupMetrics


def test_batches_of_an_evaluation_need_not_be_joined_for_the_metrics(make_trainer):
    names = ["a", "b", "c"], ["a_x", "a_y", "b_x", "b_y", "c_x", "c_y"]
    found = []
    for joined in (True, False):
        trainer = make_trainer(eval_do_concat_batches=joined, compute_metrics=GroupMetrics(*names))
        found.append({key: value for key, value in trainer.evaluate().items() if "_accuracy" in key})
    assert found[0] == found[1]


def test_weights_in_half_precision_are_told_of(make_trainer, caplog):
    logging.getLogger("clp_hf").propagate = True
    make_trainer(vit().to(torch.bfloat16), meta_every=0)
    assert "The weights to be trained are bfloat16" in caplog.text
    caplog.clear()
    make_trainer(meta_every=0)
    assert "weights to be trained" not in caplog.text
