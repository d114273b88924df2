"""What a trainer refuses, or warns of, when it is built."""

import logging

import pytest
import torch
from conftest import vit

from clp_hf.metrics import GroupMetrics


def test_metrics_of_whole_splits_are_not_given_lists(make_trainer):
    metrics = GroupMetrics(["a", "b", "c"])
    with pytest.raises(ValueError, match="Set eval_do_concat_batches=True"):
        make_trainer(eval_do_concat_batches=False, compute_metrics=metrics)
    make_trainer(eval_do_concat_batches=False, compute_metrics=lambda prediction: {})


def test_weights_in_half_precision_are_told_of(make_trainer, caplog):
    logging.getLogger("clp_hf").propagate = True
    make_trainer(vit().to(torch.bfloat16), meta_every=0)
    assert "The weights to be trained are bfloat16" in caplog.text
    caplog.clear()
    make_trainer(meta_every=0)
    assert "weights to be trained" not in caplog.text
