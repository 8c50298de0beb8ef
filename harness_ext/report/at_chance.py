"""Finds tasks and abilities in which a dense model is not above chance, or is not shown to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness_ext.report.abilities import NAMES
from harness_ext.report.trials import LoadedTrial
from harness_ext.statistics import Scores, over_seeds

ROUNDING = 1e-9  # a mean of items and a mean of their chances differ in the last bits


@dataclass(frozen=True)
class AtChance:
    """A task in which a dense model is not above chance, or is not shown to be.

    Args:
        low, high: ends of the 95 % interval of the score; None without per-sample records.
        items: number of items; None if it is unknown.
    """

    task: str
    score: float
    low: float | None
    high: float | None
    chance: float
    items: int | None = None

    @property
    def lacks_items(self) -> bool:
        """Whether the score is above chance and its interval is not: there are too few items to show it."""
        return self.score > self.chance + ROUNDING

    def phrase(self) -> str:
        """``kv_512: 0.07, 95 % CI 0.05 to 0.09, chance 0.0625, 512 items``."""
        return f"{self.task}: {self.score:.3g}{self._interval()}, chance {self.chance:.4g}{self._count()}"

    def reason(self) -> str:
        """Why the task has no curve."""
        if self.lacks_items:
            return (
                f"the dense score {self.score:.4g} is not shown to be above chance {self.chance:.4g}"
                f"{self._interval()}{self._count()}: there are too few items"
            )
        return f"the dense score {self.score:.4g} is not above chance {self.chance:.4g}: there is nothing to lose"

    def _interval(self) -> str:
        return "" if self.low is None or self.high is None else f", 95 % CI {self.low:.3g} to {self.high:.3g}"

    def _count(self) -> str:
        return "" if self.items is None else f", {self.items} item{'' if self.items == 1 else 's'}"


@dataclass(frozen=True)
class NotAboveChance:
    """The tasks of one ability in which a dense model is not above chance, or those in which it is not shown to be.

    Args:
        model: name of the model.
        ability: ability of the tasks; None for tasks without an ability.
        tasks: the tasks; ``lacks_items`` is the same for all of them.
        whole: whether these are all tasks of the ability.
    """

    model: str
    ability: str | None
    tasks: tuple[AtChance, ...]
    whole: bool

    @property
    def lacks_items(self) -> bool:
        """Whether the scores are above chance, and too few items to show it."""
        return self.tasks[0].lacks_items

    def sentence(self) -> str:
        """The sentence for the summary of a report."""
        if self.lacks_items:
            return f"That the dense {self.model} is above chance in {self.what()} is not shown: there are too few items."
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
    """The tasks in which a dense model is not above chance or not shown to be, by name.

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
        if (score.value if low is None else low) <= score.chance + ROUNDING:
            tasks[task] = AtChance(task, score.value, low, high, score.chance, len(score.scores) if score.scores else score.count)
    return tasks


def not_above_chance(dense: LoadedTrial, at_chance: Mapping[str, AtChance], abilities: Mapping[str, str]) -> list[NotAboveChance]:
    """Groups the tasks at chance by ability, those with too few items apart. Tasks without an ability come last.

    Args:
        dense: the trial of the dense model.
        at_chance: the result of ``tasks_at_chance``.
        abilities: the ability of each task, by name.
    """
    by_ability: dict[str | None, list[str]] = {ability: [] for ability in [*NAMES, None]}
    for task in dense.tasks:
        by_ability[abilities.get(task)].append(task)
    groups = []
    for ability, names in by_ability.items():
        for lacks_items in (False, True):
            tasks = tuple(at_chance[task] for task in names if task in at_chance and at_chance[task].lacks_items == lacks_items)
            if tasks:
                groups.append(NotAboveChance(dense.pretrained, ability, tasks, len(tasks) == len(names)))
    return groups
