"""Finds tasks and abilities in which a dense model is not above chance, so that pruning cannot lower its score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness_ext.report.abilities import NAMES
from harness_ext.report.trials import LoadedTrial
from harness_ext.statistics import Scores, over_seeds


@dataclass(frozen=True)
class AtChance:
    """A task in which a dense model is not above chance.

    Args:
        low, high: ends of the 95 % interval of the score; None without per-sample records.
    """

    task: str
    score: float
    low: float | None
    high: float | None
    chance: float

    def phrase(self) -> str:
        """``kv_512: 0.07, 95 % CI 0.05 to 0.09, chance 0.0625``."""
        interval = "" if self.low is None or self.high is None else f", 95 % CI {self.low:.3g} to {self.high:.3g}"
        return f"{self.task}: {self.score:.3g}{interval}, chance {self.chance:.4g}"


@dataclass(frozen=True)
class NothingToLose:
    """The tasks of one ability in which a dense model is not above chance.

    Args:
        model: name of the model.
        ability: ability of the tasks; None for tasks without an ability.
        tasks: the tasks.
        whole: whether these are all tasks of the ability.
    """

    model: str
    ability: str | None
    tasks: tuple[AtChance, ...]
    whole: bool

    def sentence(self) -> str:
        """The sentence for the summary of a report."""
        return f"There is nothing to lose in {self.what()}: the dense {self.model} is not above chance."

    def what(self) -> str:
        """``recall``, ``the task kv_512``, ``2 tasks of in-context ability``."""
        of_ability = "" if self.ability is None else f" of {NAMES[self.ability]}"
        if self.whole and self.ability is not None:
            return NAMES[self.ability]
        return f"the task {self.tasks[0].task}" if len(self.tasks) == 1 else f"{len(self.tasks)} tasks{of_ability}"

    def scores(self) -> str:
        """The scores that the sentence rests on."""
        return f"Scores of the dense {self.model} in {self.what()}: {'; '.join(task.phrase() for task in self.tasks)}."


def tasks_at_chance(dense: LoadedTrial, resamples: int) -> dict[str, AtChance]:
    """The tasks in which a dense model is not above chance, by name.

    The lower end of the interval of the score is compared with chance. Without per-sample records, the score itself is compared.

    Args:
        dense: the trial of the dense model.
        resamples: number of bootstrap resamples.
    """
    tasks = {}
    for task, score in dense.tasks.items():
        low = high = None
        if score.scores:
            ids = sorted(score.scores)
            mean = over_seeds([Scores(ids, score.in_order(ids))], resamples=resamples).accuracy.mean
            low, high = mean.low, mean.high
        if (score.value if low is None else low) <= score.chance:
            tasks[task] = AtChance(task, score.value, low, high, score.chance)
    return tasks


def nothing_to_lose(dense: LoadedTrial, at_chance: Mapping[str, AtChance], abilities: Mapping[str, str]) -> list[NothingToLose]:
    """Groups the tasks at chance by ability. Tasks without an ability come last.

    Args:
        dense: the trial of the dense model.
        at_chance: the result of ``tasks_at_chance``.
        abilities: the ability of each task, by name.
    """
    by_ability: dict[str | None, list[str]] = {ability: [] for ability in [*NAMES, None]}
    for task in dense.tasks:
        by_ability[abilities.get(task)].append(task)
    low = {ability: [at_chance[task] for task in tasks if task in at_chance] for ability, tasks in by_ability.items()}
    return [
        NothingToLose(dense.pretrained, ability, tuple(tasks), len(tasks) == len(by_ability[ability]))
        for ability, tasks in low.items()
        if tasks
    ]
