"""Two methods on the same items, against hand computation and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import raises_line
from scipy import stats

from harness_ext.statistics import MethodDifference, PairedScores, StatisticsError, ability_difference, task_difference


def paired(name="task", items=150, seeds=1, seed=0, chance=0.0, prefix="", better=0.15) -> PairedScores:
    generator = np.random.default_rng(seed)
    level = generator.random(items)
    first = (level + 0.3 * generator.standard_normal((seeds, items)) > 0.5).astype(float)
    second = (level + better + 0.3 * generator.standard_normal((seeds, items)) > 0.5).astype(float)
    return PairedScores(name, [f"{prefix}{index}" for index in range(items)], first, second, chance)


def bootstrap(first: np.ndarray, second: np.ndarray, draws: int = 40_000) -> tuple[float, float]:
    """The Bayesian bootstrap of the mean difference, with one more item at the worst or the best difference."""
    differences, generator = second - first, np.random.default_rng(99)
    ends = []
    for extra, share in ((-1.0, 0.025), (1.0, 0.975)):
        weights = generator.dirichlet(np.ones(len(differences) + 1), draws)
        ends.append(float(np.quantile(weights @ np.append(differences, extra), share)))
    return ends[0], ends[1]


def width(found: MethodDifference) -> float:
    assert found.difference.low is not None
    assert found.difference.high is not None
    return found.difference.high - found.difference.low


def test_a_task_is_the_mean_of_its_paired_differences() -> None:
    given = paired()
    first, second = given.both[0]
    found = task_difference(given)
    assert (found.name, found.tasks, found.items, found.seeds) == ("task", ("task",), 150, 1)
    assert found.first == pytest.approx(first.mean())
    assert found.second == pytest.approx(second.mean())
    assert found.difference.value == pytest.approx((second - first).mean())
    low, high = bootstrap(first, second)
    assert found.difference.low == pytest.approx(low, abs=0.006)
    assert found.difference.high == pytest.approx(high, abs=0.006)


def test_the_interval_is_narrower_than_that_of_unpaired_scores() -> None:
    given = paired(better=0.0)
    first, second = given.both[0]
    error = np.sqrt(first.var(ddof=1) / 150 + second.var(ddof=1) / 150)
    assert width(task_difference(given)) < 2 * 1.96 * error


def test_mcnemar_counts_the_items_that_only_one_gets_right_for_every_seed() -> None:
    given = paired(seeds=3)
    found = task_difference(given)
    assert len(found.mcnemar) == 3
    for (first, second), test in zip(given.both, found.mcnemar, strict=True):
        lost, won = int(((first == 1) & (second == 0)).sum()), int(((first == 0) & (second == 1)).sum())
        assert (test.right_to_wrong, test.wrong_to_right) == (lost, won)
        assert test.p_value == pytest.approx(stats.binomtest(lost, lost + won).pvalue)


def test_swapping_the_methods_mirrors_everything() -> None:
    given = paired(seeds=2)
    there = task_difference(given)
    back = task_difference(PairedScores("task", given.ids, given.second, given.first))
    assert back.difference.value == pytest.approx(-there.difference.value)
    assert [(test.wrong_to_right, test.right_to_wrong) for test in back.mcnemar] == [
        (test.right_to_wrong, test.wrong_to_right) for test in there.mcnemar
    ]


def test_seeds_widen_the_interval() -> None:
    generator = np.random.default_rng(4)
    first = np.zeros((3, 400))
    second = (generator.random((3, 400)) < np.array([[0.2], [0.5], [0.8]])).astype(float)
    ids = list(range(400))
    over, alone = PairedScores("task", ids, first, second), PairedScores("task", ids, first[:1], second[:1])
    assert width(task_difference(over)) > 3 * width(task_difference(alone))


def test_an_ability_is_the_mean_over_tasks_corrected_for_chance() -> None:
    one, other = paired("one", chance=0.25, prefix="a"), paired("other", items=90, chance=0.5, prefix="b", seed=3)
    found = ability_difference("recall", [one, other])
    corrected = [(task.both[0].mean(1) - task.chance) / (1 - task.chance) for task in (one, other)]
    assert found.first == pytest.approx(np.mean([values[0] for values in corrected]))
    assert found.second == pytest.approx(np.mean([values[1] for values in corrected]))
    assert found.difference.value == pytest.approx(found.second - found.first)
    assert found.items == 240
    both = np.concatenate([one.both[0], other.both[0]], axis=1)
    assert found.mcnemar[0].right_to_wrong == int(((both[0] == 1) & (both[1] == 0)).sum())


def test_families_have_the_same_weight() -> None:
    tasks = [paired(name, prefix=name, seed=index) for index, name in enumerate("abc")]
    found = ability_difference("recall", tasks, families={"a": 1, "b": 1, "c": 2})
    steps = [task.both[0, 1].mean() - task.both[0, 0].mean() for task in tasks]
    assert found.difference.value == pytest.approx(steps[0] / 4 + steps[1] / 4 + steps[2] / 2)


def test_items_that_two_tasks_share_are_counted_once_and_not_tested_twice() -> None:
    found = ability_difference("recall", [paired("one"), paired("other", seed=2)])
    assert found.items == 150
    assert found.mcnemar == ()


def test_graded_scores_have_a_difference_and_no_test() -> None:
    found = task_difference(PairedScores("task", [0, 1, 2], [0.1, 0.5, 0.2], [0.3, 0.5, 0.9]))
    assert found.difference.value == pytest.approx(0.9 / 3)
    assert found.mcnemar == ()


@pytest.mark.parametrize(
    ("given", "parts"),
    {
        "other lengths": ((["a", "b"], [0, 1], [0, 1, 1]), ("task", "2 ids")),
        "seeds of one side": ((["a", "b"], [[0, 1]], [[0, 1], [1, 1]]), ("task", "[seed, item]")),
        "an id twice": ((["a", "a"], [0, 1], [0, 1]), ("'a'", "2 times")),
        "percentages": ((["a", "b"], [0, 100], [0, 1]), ("100",)),
        "not a number": ((["a", "b"], [0, float("nan")], [0, 1]), ("NaN",)),
    }.values(),
)
def test_wrong_scores_are_refused(given: tuple, parts: tuple[str, ...]) -> None:
    with raises_line(StatisticsError, *parts):
        PairedScores("task", *given)
    with raises_line(StatisticsError, "level=2"):
        task_difference(paired(), level=2)
    with raises_line(StatisticsError, "seeds", "recall"):
        ability_difference("recall", [paired("one"), paired("other", seeds=2)])
