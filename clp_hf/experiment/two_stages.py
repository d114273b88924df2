"""What a method of two stages is: an ordinary training, what is learned of it, and what it is learned for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..stages import Learned

FOLDER = "first_stage"  # in that of the run
SHARE = "first_share"


@dataclass(frozen=True)
class Stages:
    """A method of two stages. The first one is an ordinary run. With `between` the second one is too, of a new network;
    else it is a repair of the first one's head.

    Attributes:
        first: the training arguments of the first run that are not the recipe's.
        between: what is learned of the training images by the first classifier, a function of `clp_hf.stages`.
        second: the training arguments of the second run, likewise.
        repair: in their place, the name of one of `REPAIRS`.
        share: of the training, that the first run is stopped after, in (0, 1].
        needs: `meta`, a meta set; `meta groups`, one whose groups are known.
    """

    first: Mapping[str, Any]
    between: Callable[..., Learned] | None = None
    second: Mapping[str, Any] | None = None
    repair: str | None = None
    share: float = 1.0
    needs: str | None = None

    @property
    def settings(self) -> Mapping[str, Any]:
        """Of the run that is saved: of the second, or of the first one whose head is repaired."""
        return self.first if self.second is None else self.second

    @property
    def options(self) -> tuple[str, ...]:
        """What can be given in the place of published settings."""
        own = () if self.between is None else tuple(inspect.signature(self.between).parameters)[1:]
        return (SHARE, *own)
