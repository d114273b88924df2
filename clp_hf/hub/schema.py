"""What the files of a run hold, as types by which they are checked when they are read."""

import json
import re
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import NotRequired, TypedDict

from ..utils.text import one_line

T = TypeVar("T")
Count = Annotated[int, Field(ge=0)]
Number = Annotated[float, Field(strict=True)]  # of JSON: no text that looks like one
# Names in a log or in results that are read again; beside them anybody may have logged anything.
READ = re.compile(
    r"step|epoch|loss|hard_loss|score|average|train_runtime|(eval|test|perturbation|weight|covariance|feature_weight|loss_raised)_.*"
)
WEIGHTS = "weights_fingerprint"  # in an entry of the log: of which weights it tells


class MaskCounts(TypedDict):
    """Of a split: how many images, how many of them have an empty or a full mask, and the first of these."""

    __pydantic_config__ = ConfigDict(extra="allow")
    images: Count
    empty: Count
    full: Count
    indices: list[int]


Settings = TypedDict(
    "Settings", {"data and model": dict[str, Any], "training": dict[str, Any], "method": dict[str, Any]}
)


class Facts(TypedDict, total=False):
    """What a card tells of a method beyond its settings; which of them, `FACTS_OF` says."""

    __pydantic_config__ = ConfigDict(extra="allow")
    infills: dict[str, list[str]]
    meta_size: Count
    meta_unmaskable: Count
    meta_source: str
    network_parameters: Count
    training_loss: str
    train_sampling: str
    train_infills: list[str]
    train_infill_share: Number
    rule: str
    epochs: list[int]
    trials: Count
    strengths: dict[str, Number]
    agreement: dict[str, Number]
    swapped_copies: Count


META_SET = ("meta_size", "meta_unmaskable", "meta_source")
META_FACTS = ("infills", *META_SET, "network_parameters")
FACTS_OF = {
    "clp": META_FACTS,
    "meta-weight-net": META_FACTS,
    "l2rw": META_FACTS,
    "meta-saug": META_FACTS,
    "mfrw-mes": META_FACTS,
    "plain-trainer": ("training_loss", "train_sampling"),
    "hsfm": ("rule", "epochs", "trials"),
    "clp-head": ("rule", "trials", *META_SET, "strengths", "agreement", "swapped_copies"),
    "dfr": ("rule", "trials"),
    "gsr": ("rule", "trials"),
    "afr": ("rule", "trials"),
    "jtt": ("rule", "trials"),
    "regression": ("rule", "trials"),
    "crt": ("rule", "trials"),
    "lws": ("rule", "trials"),
    "tde": ("rule", "trials"),
    "self": ("rule", "trials"),
    "group-dro-head": ("rule", "trials"),
}


class Selection(TypedDict):
    """Which step's weights these are, None of no step, and where they were chosen, by which metric and its value."""

    step: Count | None
    max_steps: int
    metric: str | None
    value: NotRequired[Number]
    greater: NotRequired[bool]


class Cost(TypedDict):
    """Of training, in seconds, None where it was not timed; and of the classifier."""

    runtime: Number | None
    cpu_seconds: Number | None
    device: str
    processes: Annotated[int, Field(ge=1)]
    parameters: Count


def _read(entry: Any) -> Any:
    known = isinstance(entry, dict)
    return {name: value for name, value in entry.items() if READ.fullmatch(name)} if known else entry


Numbers = Annotated[dict[str, Number], BeforeValidator(_read)]


class TrainerLog(TypedDict):
    """The part of `trainer_state.json` that is read again."""

    log_history: list[Numbers]


def read_json(path: Path, kind: type[T]) -> T:
    """A file of JSON that holds what `kind` says.

    Raises:
        ValueError: it cannot be read, or a field is missing or of another type; the message names file and field.
    """
    try:
        found = json.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not valid JSON: it is no text in UTF-8 (byte {error.start}).") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is not valid JSON; was the run cut off while it was written, or the file edited? {error}"
        ) from error
    try:
        return TypeAdapter(kind).validate_python(found)
    except ValidationError as error:
        first, *others = error.errors(include_url=False)
        field = ".".join(one_line(part) for part in first["loc"]) or "the whole file"
        shown = "" if first["type"] == "missing" else f", found {one_line(repr(first['input']))}"
        more = f" ({len(others)} other field{'s' if len(others) > 1 else ''} as well)" if others else ""
        raise ValueError(f"{path}: {field}: {first['msg']}{shown}{more}.") from error
