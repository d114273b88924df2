"""Values of settings files: what a flag takes, and of the type of the option."""

import json
from typing import get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from transformers import HfArgumentParser

from clp_hf import CLPTrainingArguments
from clp_hf.experiment.values import setting_value
from clp_hf.hub.record import own_fields

HINTS = get_type_hints(CLPTrainingArguments)
ACTIONS = {action.dest: action for action in reversed(HfArgumentParser(CLPTrainingArguments)._actions)}
OWN = own_fields(CLPTrainingArguments)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)


@pytest.mark.parametrize("name", OWN)
def test_defaults_are_values_of_their_options(name):
    default = json.loads(json.dumps(ACTIONS[name].default))
    assert setting_value(default, HINTS[name], ACTIONS[name]) == default


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(OWN), st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=2), max_leaves=3))
def test_any_value_is_read_as_its_option_or_refused_in_words(name, value):
    try:
        found = setting_value(value, HINTS[name], ACTIONS[name])
    except ValueError as refused:
        message = str(refused)
    else:
        TypeAdapter(HINTS[name]).validate_python(found, strict=True)
        assert not isinstance(value, bool) or found is value
        return
    assert message.startswith("expected ")
