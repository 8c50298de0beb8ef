"""Makes the items of the ``icl_*`` tasks: in-context learning of functions, and of categories of words.

The tasks follow Jin et al. (arXiv 2310.04680). Each item draws a function, shows ``exemplars`` labelled points and asks for the label of
one more point. Labels are balanced among exemplars and among queries. A constant answer, the commonest label and the last label therefore
all score ``1 / labels``. The module :mod:`harness_ext.tasks.words` makes the items of words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from harness_ext.errors import BadOptionError, UnknownNameError, did_you_mean, shown
from harness_ext.tasks.functions import FAMILIES, draw_labelled_points
from harness_ext.tasks.options import LARGEST_SEED, MOST_ITEMS, TaskOptions, checked, whole
from harness_ext.tasks.scoring import score_choices
from harness_ext.tasks.words import WORD_FAMILIES, check_enough, read_categories, word_item

if TYPE_CHECKING:
    import datasets

process_results = score_choices
KNOWN_FAMILIES = (*FAMILIES, *WORD_FAMILIES)


def _check_categories(name: str, value: Any) -> None:
    if value is not None and (not isinstance(value, str) or not value):
        raise BadOptionError(f"{name}={shown(value)}: want the path of a JSON file with the words of each category")


class Options(TaskOptions):
    """The options of the ICL tasks, with the prefix ``icl_``.

    Attributes:
        dimensions, low, high: Number and range of the inputs of functions. Tasks of words ignore them.
        categories: A JSON file with the words of each category, to replace the package's own.
    """

    prefix: ClassVar[str] = "icl_"
    items: int = whole(2048, 1, MOST_ITEMS)
    dimensions: int = whole(4, 1, 16)
    exemplars: int = whole(32, 1, 4096)
    labels: int = whole(2, 2, 10)  # a label is one digit
    low: int = whole(0, -(10**6), 10**6)  # keeps all sums of the networks within 64 bits
    high: int = whole(9, -(10**6), 10**6)
    seed: int = whole(0, 0, LARGEST_SEED)
    categories: str | None = checked(None, _check_categories)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.exemplars < self.labels:
            raise BadOptionError(f"icl_exemplars={self.exemplars}: want at least one for each of the {self.labels} labels")
        if self.low >= self.high:
            raise BadOptionError(f"icl_low={self.low}, icl_high={self.high}: want low < high")
        points = (self.high - self.low + 1) ** self.dimensions
        if points < 2 * (self.exemplars + 1):
            raise BadOptionError(
                f"icl_dimensions={self.dimensions}, icl_low={self.low}, icl_high={self.high}: {points} points are too few for "
                f"{self.exemplars} exemplars and a query that are all different: want at least {2 * (self.exemplars + 1)}"
            )


check_options = Options.check_metadata


def reads(**_: Any) -> tuple[str, ...]:
    """The prefixes of the options that a task reads."""
    return (Options.prefix,)


def check_task(*, family: str, **metadata: Any) -> Options:
    """Checks the family and the options of a task, also in combination, without making its items.

    Args:
        family, metadata: as for :func:`load`.

    Raises:
        UnknownNameError, BadOptionError: the family is unknown, or an option is unknown or impossible.
    """
    if family not in KNOWN_FAMILIES:
        raise UnknownNameError(
            f"no family named {shown(family)}.{did_you_mean(family, KNOWN_FAMILIES)} Families: {', '.join(KNOWN_FAMILIES)}"
        )
    options = Options.from_metadata(metadata)
    if family in WORD_FAMILIES:
        check_enough(read_categories(options.categories), options.labels, options.exemplars)
    item(family, options, 0)
    return options


def count(*, family: str, **metadata: Any) -> int:
    """How many items a task has; arguments and errors as for :func:`check_task`."""
    return check_task(family=family, **metadata).items


def load(*, family: str, **metadata: Any) -> dict[str, datasets.Dataset]:
    """The ``custom_dataset`` of the ICL tasks.

    Args:
        family: ``linear``, ``nn``, ``tree``, ``words`` or ``words_shuffled``; set in the task's YAML.
        metadata: metadata of the task, to which lm-eval adds the model arguments. Names that do not begin with ``icl_`` are ignored, so
            that a dense and a pruned model get the same items.

    Raises:
        BadOptionError: an option is unknown or impossible.
    """
    import datasets

    options = check_task(family=family, **metadata)
    return {"test": datasets.Dataset.from_list([item(family, options, index) for index in range(options.items)])}


def item(family: str, options: Options, index: int) -> dict[str, Any]:
    """Makes one item. It depends on the arguments only, not on the number of items.

    Returns:
        ``prompt``, ``choices`` (all labels as text), ``target`` (index of the right label), and the ``points`` and ``labels``.
        For words, see :func:`harness_ext.tasks.words.word_item`.
    """
    if family in WORD_FAMILIES:
        return word_item(
            read_categories(options.categories), labels=options.labels, exemplars=options.exemplars, seed=options.seed, index=index,
            shuffled=family == "words_shuffled",
        )  # fmt: skip
    rng = np.random.RandomState([options.seed, sorted(FAMILIES).index(family), options.labels, index])
    points, labels = draw_labelled_points(
        family, rng, dimensions=options.dimensions, exemplars=options.exemplars, labels=options.labels, low=options.low, high=options.high,
        query_label=index % options.labels,
    )  # fmt: skip
    return {
        "prompt": render(points, labels),
        "choices": [str(label) for label in range(options.labels)],
        "target": int(labels[-1]),
        "points": points.tolist(),
        "labels": labels.tolist(),
    }


def render(points: NDArray[Any], labels: NDArray[Any]) -> str:
    """The prompt: an ``Input:`` and an ``Output:`` line for each exemplar, then the query without its label.

    Args:
        points: int64 [exemplars + 1, dimensions], the query last.
        labels: int64 [exemplars + 1].
    """
    lines = ["Input: " + ", ".join(map(str, point)) + "\nOutput:" for point in points.tolist()]
    shown = [f"{line} {label}" for line, label in zip(lines, labels.tolist(), strict=True)]
    return "\n\n".join([*shown[:-1], lines[-1]])
