"""Dense models that are not above chance: they have nothing to lose there."""

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
        low, high: the ends of the 95 % interval of the score; None where there are no per-sample records.
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
    """A dense model, and what it is not above chance in.

    Args:
        model: its name.
        ability: of the tasks; None for tasks of no ability.
        tasks: in which it is not above chance.
        whole: whether these are all tasks of the ability.
    """

    model: str
    ability: str | None
    tasks: tuple[AtChance, ...]
    whole: bool

    def sentence(self) -> str:
        """In words, first what the reader must know."""
        return f"There is nothing to lose in {self.what()}: the dense {self.model} is not above chance."

    def what(self) -> str:
        """``recall``, ``the task kv_512``, ``2 tasks of in-context ability``."""
        of_ability = "" if self.ability is None else f" of {NAMES[self.ability]}"
        if self.whole and self.ability is not None:
            return NAMES[self.ability]
        return f"the task {self.tasks[0].task}" if len(self.tasks) == 1 else f"{len(self.tasks)} tasks{of_ability}"

    def scores(self) -> str:
        """The scores behind the sentence."""
        return f"Scores of the dense {self.model} in {self.what()}: {'; '.join(task.phrase() for task in self.tasks)}."


def tasks_at_chance(dense: LoadedTrial, resamples: int) -> dict[str, AtChance]:
    """The tasks in which a dense model is not above chance, by the lower end of the interval of its score.

    Without per-sample records there is no interval, and the score itself counts.

    Args:
        resamples: of the bootstrap.
    """
    found = {}
    for task, score in dense.tasks.items():
        low = high = None
        if score.scores:
            ids = sorted(score.scores)
            mean = over_seeds([Scores(ids, [score.scores[key] for key in ids])], resamples=resamples).accuracy.mean
            low, high = mean.low, mean.high
        if (score.value if low is None else low) <= score.chance:
            found[task] = AtChance(task, score.value, low, high, score.chance)
    return found


def nothing_to_lose(dense: LoadedTrial, at_chance: Mapping[str, AtChance], abilities: Mapping[str, str]) -> list[NothingToLose]:
    """By ability, those of no ability last.

    Args:
        at_chance: as ``tasks_at_chance`` gives it.
        abilities: of the tasks, by name.
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
