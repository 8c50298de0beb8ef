"""Counting: how often does a word occur in a list? After the aggregation tasks of RULER (Hsieh et al., arXiv 2404.06654).

In a list, equally many words occur once, twice, and so on. The number of words of a list, the most frequent word and the numbers that were
asked before therefore tell nothing about the answer. The dial is the length of the list.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from harness_ext.errors import BadOptionError
from harness_ext.tasks.balanced import check_balance, draw_answers
from harness_ext.tasks.lookup import VALUES
from harness_ext.tasks.options import LARGEST_SEED, MOST_ITEMS, TaskOptions, whole
from harness_ext.tasks.people import PROFESSIONS

WORDS = (*VALUES, *PROFESSIONS)  # each is one token of the embedded models' tokenizer


class Options(TaskOptions):
    """The options of the tasks of counting, with the prefix ``counting_``.

    Attributes:
        length: Number of words in the list: the dial. A multiple of 1 + 2 + ... + ``most``.
        most: Largest number of occurrences of a word. The choices are 1 to ``most``.
        queries: Number of other words that are asked for first, with their numbers.
    """

    prefix: ClassVar[str] = "counting_"
    items: int = whole(1024, 1, MOST_ITEMS)
    length: int = whole(20, 3, 10_000)
    most: int = whole(4, 2, 9)  # a number is one digit
    queries: int = whole(4, 0, 100)
    seed: int = whole(0, 0, LARGEST_SEED)

    def __post_init__(self) -> None:
        super().__post_init__()
        each = self.most * (self.most + 1) // 2
        if self.length % each:
            raise BadOptionError(
                f"{self.told('length')}: want a multiple of {each} with {self.told('most')}, so that equally many words occur 1 to "
                f"{self.most} times"
            )
        if self.words > len(WORDS):
            raise BadOptionError(f"counting_length={self.length}: {self.words} different words: there are {len(WORDS)}")
        check_balance(self, carriers="length", choices="most", per_choice=self.most + 1, each=2)

    @property
    def words(self) -> int:
        """Number of different words in the list."""
        return 2 * self.length // (self.most + 1)


def item(options: Options, index: int) -> dict[str, Any]:
    """Makes one item. It depends on the arguments only.

    Returns:
        ``prompt``, ``choices`` (the numbers), ``target`` and ``words`` (of the list, in order).
    """
    rng = np.random.RandomState([options.seed, 0xC047, options.length, options.most, index])
    numbers = tuple(str(number) for number in range(1, options.most + 1))
    answers = draw_answers(
        rng, numbers, asked=0, target=index % options.most, count=options.words, values=options.most, queries=options.queries
    )
    words = [WORDS[place] for place in rng.permutation(len(WORDS))[: options.words]]
    occurrences = [word for word, answer in zip(words, answers.of, strict=True) for _ in range(answer + 1)]
    listed = [occurrences[place] for place in rng.permutation(options.length)]
    asked = [(words[place], numbers[answers.of[place]]) for place in answers.earlier]
    return {"prompt": render(listed, asked, words[0]), "choices": list(numbers), "target": answers.target, "words": listed}


def render(listed: list[str], asked: list[tuple[str, str]], query: str) -> str:
    """The prompt: the list, the earlier words with their numbers, and the word that is asked for."""
    lines = [f"List: {', '.join(listed)}", "How often is each word in the list?"]
    return "\n".join([*lines, *(f"{word}: {number}" for word, number in asked), f"{query}:"])
