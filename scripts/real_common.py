"""Facts whose right answer is the commonest one of their relation: who always gives that answer is right without knowing the fact."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from real_scores import ABILITIES, OVERRIDE, READING, RECALL, Results

from harness_ext.sweep import load

OF_FACTS = (RECALL, READING, OVERRIDE)


@dataclass(frozen=True)
class Common:
    """The facts whose answer is the commonest of their relation, and what the dense model recalls."""

    items: frozenset[str]
    others: frozenset[str]
    recall: float
    """Of all facts."""
    recall_of_items: float
    recall_of_others: float

    @property
    def share(self) -> float:
        """The recall of who always gives the commonest answer of each relation."""
        return len(self.items) / (len(self.items) + len(self.others))


def common_answers(sweeps: Iterable[Path]) -> Common | None:
    """From the dense trials; None where their records lack the right answers, or every answer is the commonest."""
    dense = next((record for sweep in sweeps for record in load(sweep) if record.is_dense), None)
    task = next(task for task, ability in ABILITIES.items() if ability == RECALL)
    if dense is None or task not in dense.tasks:
        return None
    rows = {row["id"]: row for row in dense.samples(task) if row["filter"] == "none" and "target" in row and "/" in row.get("id", "")}
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for item, row in rows.items():
        counts[relation(item)][row["target"]] += 1
    most = {name: answers.most_common(1)[0][0] for name, answers in counts.items()}  # of equally common ones, the first
    items = frozenset(item for item, row in rows.items() if row["target"] == most[relation(item)])
    others = frozenset(rows) - items
    if not others:
        return None
    right = {item: float(row["acc"]) for item, row in rows.items()}
    means = (sum(right[item] for item in group) / len(group) for group in (rows.keys(), items, others))
    return Common(items, others, *means)


def relation(item: str) -> str:
    """``city in country`` of ``city in country/Oslo``."""
    return item.partition("/")[0]


def without(results: Results, items: frozenset[str]) -> Results:
    """The results without some facts, in all abilities that are of facts."""
    kept = {
        name: replace(scores, dense={item: right for item, right in scores.dense.items() if item not in items})
        if name in OF_FACTS
        else scores
        for name, scores in results.abilities.items()
    }
    return replace(results, abilities=kept)
