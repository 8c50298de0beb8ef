"""Checks the names in ``--metadata``. lm-eval takes any name, adds the model arguments, and passes all of them to every task."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from harness_ext.errors import BadOptionError, shown

if TYPE_CHECKING:
    from harness_ext.tasks.options import TaskOptions

OF_LM_EVAL = ("relation",)  # near to one of ours; tasks that want relations say so themselves
RELATIONS = "relations"  # the only option of our tasks without a prefix
NEAR_STEM, NEAR_IF_KNOWN, NEAR_NAME = 0.75, 0.6, 0.85
"""How much alike a prefix must be to one of ours, the same where the rest is the name of an option, and how much alike whole names."""


def families() -> dict[str, type[TaskOptions]]:
    """The options of each family of our tasks, by the prefix."""
    from harness_ext.tasks import dials, fact_options, hub_facts, icl, lookup

    kinds: list[type[TaskOptions]] = [
        icl.Options,
        fact_options.Options,
        hub_facts.HubOptions,
        lookup.Options,
        *(kind.options for kind in dials.KINDS.values()),
    ]
    return {kind.prefix: kind for kind in kinds}


def check_names(metadata: Mapping[str, Any]) -> None:
    """Refuses names that are nearly names of our options. Others may be options of other tasks, or arguments of the model.

    Raises:
        BadOptionError: there is such a name; the message has the nearest name.
    """
    for name in metadata:
        if isinstance(name, str) and (meant := nearest(name)) is not None:
            raise BadOptionError(f"no task option {shown(name)}. Did you mean {meant!r}?")


def nearest(name: str) -> str | None:
    """The option that a misspelt name most likely means; None if the name is an option, or is not near to one."""
    ours = families()
    options = {option: prefix for prefix, kind in ours.items() for option in kind.names()}
    if name in options or name == RELATIONS or name in OF_LM_EVAL:
        return None
    written = name.lower().replace("-", "_").replace(".", "_").strip("_")
    same_letters = {option.replace("_", ""): option for option in [*options, RELATIONS]}
    if meant := same_letters.get(written.replace("_", "")):
        return meant
    if _alike(written, RELATIONS) >= NEAR_NAME:
        return RELATIONS
    found: list[tuple[float, str]] = []
    for option, prefix in options.items():
        for place in [place for place, letter in enumerate(written) if letter == "_"]:
            stem, rest = _alike(written[:place], prefix[:-1]), _alike(written[place + 1 :], option.removeprefix(prefix))
            if stem >= (NEAR_IF_KNOWN if rest == 1 else NEAR_STEM) and rest >= NEAR_STEM:
                found.append((stem + rest, option))
    return max(found)[1] if found else None


def unread(metadata: Mapping[str, Any], readers: Iterable[tuple[str, Iterable[str]] | None]) -> str | None:
    """Says in one line which options of our tasks none of the chosen tasks reads; None if there are none.

    Args:
        readers: of each chosen task its name and the prefixes, or whole names, of the options that it reads; None for a task that may
            read any option.
    """
    chosen: dict[str, tuple[str, ...]] = {}
    for reader in readers:
        if reader is None:
            return None
        chosen[reader[0]] = tuple(reader[1])
    read = {start for starts in chosen.values() for start in starts}
    kinds = families()
    starts = {option: prefix for prefix, kind in kinds.items() for option in kind.names()} | {RELATIONS: RELATIONS}
    names = [name for name in metadata if name in starts and starts[name] not in read]
    if not names or not chosen:
        return None
    tasks = ", ".join([*list(chosen)[:3], *([f"{len(chosen) - 3} more"] if len(chosen) > 3 else [])])
    wanted = ", ".join(f"{start}*" if start in kinds else start for start in sorted(read))
    return f"task options without effect: {', '.join(names)}: none of the tasks reads them ({tasks}); they read {wanted or 'none of ours'}"


def _alike(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()
