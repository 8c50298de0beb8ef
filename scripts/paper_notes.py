"""What docs/results.md says beside a verdict, where the rule of the claim does not tell the whole story."""

from __future__ import annotations

import numpy as np
from paper_scores import ABILITIES, Cell, MissingError, Scores, measure, of, rounded, told
from paper_verdicts import NOT_TESTABLE, SHOWN, Line, below

from harness_ext.statistics import StatisticsError, ability_critical

DROP = 0.05
ACQUIRED = 0.25  # a smaller dense model with a smaller share of the score of lab-m never learned the ability
PRUNERS = ("sparsegpt", "wanda")
IN_CONTEXT = ("in-context", "reading", "override", "lookup", "functions")
SMALLER = ("lab-s4", "lab-s", "lab-xs")


def not_acquired(scores: Scores) -> list[Line]:
    """The in-context abilities that smaller dense models never learned, by comparison with the dense lab-m, chance-corrected."""
    lines = []
    for model in SMALLER:
        for ability in IN_CONTEXT[1:]:
            try:
                quantities = [of(ability, Cell("lab-m")), of(ability, Cell(model))]
                found = measure(scores, quantities, lambda m: m[:, 1] / m[:, 0], corrected=True)
            except MissingError:
                continue
            if below(found.low, found.high, ACQUIRED) == SHOWN:
                lines.append(Line(f"{model}, {ability}: learned?", f"{told(found)} of the score of lab-m", NOT_TESTABLE))
    return lines


def read_worse(scores: Scores) -> str:
    """Says which smaller models answer fewer questions with the true passage than without."""
    sentences = []
    for model in SMALLER:
        closed, opened = (float(scores.rows(Cell(model), f"lab_facts_{condition}", [0]).mean()) for condition in ("closed", "open"))
        if opened < closed:
            sentences.append(
                f"{model} answers {100 * closed:.0f} % of the questions alone, and {100 * opened:.0f} % with the true passage."
            )
    return " ".join(sentences)


def functions_kept(scores: Scores) -> str:
    """Says how much of function learning is left at 0.7, 0.8 and 0.9, since the rule does not say where the loss comes."""
    told_of = []
    for pruner in PRUNERS:
        try:
            dense = scores.mean(Cell(), "functions")
            kept = [100 * scores.mean(Cell(pruner=pruner, ratio=ratio), "functions") / dense for ratio in (0.7, 0.8, 0.9)]
        except MissingError:
            continue
        told_of.append(f"{rounded(kept[0], 0)}, {rounded(kept[1], 0)} and {rounded(kept[2], 0)} % with {pruner}")
    if not told_of:
        return ""
    return f"Of the dense score above chance, this model keeps at 0.7, 0.8 and 0.9: {'; '.join(told_of)}."


def before_recall(scores: Scores, name: str, cell: Cell) -> str:
    """Names the abilities that fail before recall, which a mean over all in-context tasks hides."""
    try:
        found = {ability: fails_at(scores, ability, cell) for ability in ("recall", *IN_CONTEXT[1:])}
    except (MissingError, StatisticsError):
        return ""
    earlier = [f"{ability} ({at:.2f})" for ability, at in found.items() if at < found["recall"]]
    if not earlier:
        return ""
    return (
        f"The mean hides an exception. Calibrated on {name}, {' and '.join(earlier)} fail before recall ({found['recall']:.2f}), by the "
        "estimates alone. Four of the nine tasks in the mean are variants of one passage task."
    )


def fails_at(scores: Scores, ability: str, cell: Cell) -> float:
    """The critical sparsity at a drop of 5 %, chance-corrected; infinite if the ability never fails within the grid."""
    found = ability_critical(scores.curves(cell, ABILITIES[ability]), drop=DROP, corrected=True, resamples=100).sparsity
    return np.inf if found is None else found
