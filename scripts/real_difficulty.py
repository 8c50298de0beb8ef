"""What SmolLM2 loses first between items of equal difficulty, for each ability in context alone and for their mean."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from equal_difficulty import analysed, merged
from real_scores import ABILITIES, OVERRIDE, READING, RECALL, WORDS

from harness_ext.report.claims import MAIN_DROP
from harness_ext.report.difficulty import HALF
from harness_ext.report.difficulty_figure import NAME, difficulty_figure
from harness_ext.report.margins import Margins
from harness_ext.report.trials import LoadedTrial, TaskScore
from harness_ext.statistics.checks import RESAMPLES
from harness_ext.statistics.disparity import range_words

ALL = "the mean of the three"
COMPARED = {READING: (READING,), OVERRIDE: (OVERRIDE,), WORDS: (WORDS,), ALL: (READING, OVERRIDE, WORDS)}
"""What recall is compared with: the abilities of each comparison."""


def difficulty_rows(sweeps: Sequence[Path], recalled: Iterable[str], picture: Path, resamples: int = RESAMPLES) -> list[list[str]]:
    """Draws the figure of critical sparsities against difficulty, and compares recall with each ability.

    Args:
        sweeps: folders of sweeps that prune all layers.
        recalled: ids of the facts that the dense model recalls: of the others, none counts in override.
        picture: the PNG to write.

    Returns:
        Rows of method, ability, drop, how much later than recall the ability is lost (of all items, and at equal difficulty), what is
        shown at equal difficulty, and the effective numbers of items. None without the answers of the dense model.
    """
    trials, known, rows = merged(sweeps), {f"id:{item}" for item in recalled}, []
    for compared, abilities in COMPARED.items():
        analysis = analysed([_only(trial, {RECALL, *abilities}, known) for trial in trials], resamples)
        if compared == ALL:
            with TemporaryDirectory() as folder:
                if difficulty_figure(analysis, Path(folder)) is not None:
                    shutil.copyfile(Path(folder) / f"{NAME}.png", picture)
        for (label, drop), matched in analysis.difficulty.matched.items():
            if drop in (MAIN_DROP, HALF):
                found, raw = matched.found.disparity, matched.raw
                shown = ("refused", "-") if found is None else (later(found.low, found.high), found.finding)
                effective = " and ".join(f"{count:.0f}" for count in matched.found.overlap.effective)
                finding = shown[1].replace("in-context", compared)
                rows.append([label, compared, f"{100 * drop:g} %", later(raw.low, raw.high), shown[0], finding, effective])
    order = list(COMPARED)
    return sorted(rows, key=lambda row: (row[0], order.index(row[1]), len(row[2])))


def later(low: float | None, high: float | None) -> str:
    """``0.1 to 0.3``: a difference of critical sparsities, in hundredths."""
    return range_words(*(None if end is None else round(end, 2) + 0.0 for end in (low, high)))


def _only(trial: LoadedTrial, abilities: set[str], known: set[str]) -> LoadedTrial:
    """A trial with the tasks of these abilities alone, and the items of override that count."""
    tasks = {task: score for task, score in trial.tasks.items() if ABILITIES.get(task) in abilities}
    return replace(trial, tasks={task: _among(score, known) if ABILITIES[task] == OVERRIDE else score for task, score in tasks.items()})


def _among(score: TaskScore, known: set[str]) -> TaskScore:
    if score.scores is None:
        return score
    scores = {item: value for item, value in score.scores.items() if item in known}
    margins = score.margins and Margins(
        {item: value for item, value in score.margins.values.items() if item in known}, score.margins.unit, score.margins.why_not
    )
    return replace(
        score, scores=scores, margins=margins, value=sum(scores.values()) / len(scores), count=len(scores), predictions=None, labels=None
    )
