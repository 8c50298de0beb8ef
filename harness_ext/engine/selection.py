"""Which linear layers ``modules`` selects: kinds and globs, and exclusions of them."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from harness_ext.engine.kinds import KINDS
from harness_ext.errors import BadOptionError, did_you_mean, shown

SEPARATOR = "+"  # not a comma, which in model_args of lm_eval ends the argument
NOT = "!"
WANTED = "want all, attention, ffn, or a glob such as '*.q_proj', or several joined by + with exclusions, such as 'all+!model.layers.0.*'"


def parse_modules(given: Any) -> str:
    """``modules`` as it stands in a record: terms joined by ``+``.

    Args:
        given: a text with terms joined by ``+`` or commas, or a list of terms.

    Raises:
        BadOptionError: no text, or an empty term.
    """
    terms = given if isinstance(given, list | tuple) else re.split(r"[+,]", given) if isinstance(given, str) else []
    if not terms or not all(isinstance(term, str) and term.strip().removeprefix(NOT) for term in terms):
        raise BadOptionError(f"modules={shown(given)}: {WANTED}")
    return SEPARATOR.join(term.strip() for term in terms)


def selects(modules: str, name: str, kind: str) -> bool:
    """Whether ``modules`` selects what has this full name and this kind: a term matches it, and no exclusion does."""
    wanted, unwanted = _terms(modules)
    return any(_matches(term, name, kind) for term in wanted) and not any(_matches(term, name, kind) for term in unwanted)


def check_selection(modules: str, layers: Sequence[tuple[str, str]]) -> None:
    """Refuses a choice that selects no layer, or that has a term which matches none.

    Args:
        layers: the full name and the kind of each layer of the model.

    Raises:
        BadOptionError: such a choice.
    """
    names = [name for name, _ in layers]
    wanted, unwanted = _terms(modules)
    if not any(_matches(term, *layer) for term in wanted for layer in layers) and not unwanted and len(wanted) == 1:
        example = names[0].rsplit(".", 1)[-1]
        raise BadOptionError(
            f"modules={shown(modules)} selects no layer: want all, attention, ffn, or a glob such as '*.{example}'."
            + did_you_mean(modules, [*KINDS, *names])
        )
    for term in (*wanted, *unwanted):
        if any(_matches(term, *layer) for layer in layers):
            continue
        inside = next((name for name in names if name.startswith(f"{term}.")), None)
        hint = f" For all layers in it, say '{term}.*'" if inside else did_you_mean(term, [*KINDS, *names])
        if not hint:
            hint = f" The layers are {names[0]!r} to {names[-1]!r}"
        raise BadOptionError(f"modules={shown(modules)}: {term!r} matches no layer.{hint}")
    if not any(selects(modules, *layer) for layer in layers):
        raise BadOptionError(f"modules={shown(modules)} selects no layer: its exclusions leave nothing")


@lru_cache(maxsize=64)
def _terms(modules: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What is selected, all if there are exclusions alone; and what is excluded."""
    terms = parse_modules(modules).split(SEPARATOR)
    wanted = tuple(term for term in terms if not term.startswith(NOT))
    return wanted or ("all",), tuple(term.removeprefix(NOT) for term in terms if term.startswith(NOT))


def _matches(term: str, name: str, kind: str) -> bool:
    if term in KINDS:
        return term in ("all", kind)
    return fnmatch.fnmatchcase(name, term)
