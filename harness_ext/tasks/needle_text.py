"""The sentences of the needle tasks: who has which thing, questions for the category of the thing, and filler without either.

The words are those of :mod:`harness_ext.tasks.words`. No content word of a question occurs in the
text: they share ``the``, ``is`` and ``with`` alone.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from harness_ext.tasks.words import read_categories

NAMES = tuple("Adam Anna Ben Clara David Emma Frank Grace Henry Jack Jane Kate Leo Lucy Mary Paul Peter Rosa Sam Tom".split())

# What a question calls a category of things. A word that contains such a word (grapefruit) is left out.
QUESTION_NAMES = {
    "mammals": "mammal",
    "birds": "bird",
    "fruits": "fruit",
    "vegetables": "vegetable",
    "clothes": "piece of clothing",
    "furniture": "piece of furniture",
    "vehicles": "vehicle",
    "musical instruments": "musical instrument",
}
_PLURALS = ("jeans", "pajamas", "shorts", "trousers")

_OPENINGS = (
    "The", "The", "The", "In the north, the", "As before, the", "During the summer, the", "According to the report, the",
    "For many years, the", "At dawn, the", "Much later, the",
)  # fmt: skip
_ADJECTIVES = "quiet old narrow distant gentle empty bright familiar ancient peaceful broad hidden lonely steep misty".split()
_NOUNS = """river wind valley harbour village meadow bridge forest lake mountain street window evening sky path hill tower mill coast island
stream field shadow""".split()
_PREDICATES = (
    "changed little over the years", "looked different after the storm", "was described in a local newspaper", "seemed larger than before",
    "stayed the same for weeks", "could be seen from far away", "attracted few visitors in winter", "had been forgotten by everyone",
    "appeared on no map", "became well known", "was worth a long walk", "lay outside the town",
)  # fmt: skip


@lru_cache(maxsize=1)
def words() -> dict[str, tuple[str, ...]]:
    """The things of each category that a text can name."""
    named = [word for name in QUESTION_NAMES.values() for word in name.split() if len(word) > 2]
    categories = read_categories(None)
    return {
        category: tuple(word for word in categories[category] if word not in _PLURALS and not any(part in word for part in named))
        for category in QUESTION_NAMES
    }


def needle(word: str, name: str) -> str:
    """The sentence that tells who has the thing."""
    return f"The {word} is with {name}."


def question(thing: str) -> str:
    """The beginning of a sentence that the name completes.

    Args:
        thing: a word, or what a question calls its category.
    """
    return f"The {thing} is with"


def filler(rng: np.random.RandomState, least: int) -> list[str]:
    """Different sentences about nobody, with ``least`` words or a few more together."""
    sentences: list[str] = []
    seen: set[str] = set()
    words_so_far = 0
    while words_so_far < least:
        parts = [bank[rng.randint(len(bank))] for bank in (_OPENINGS, _ADJECTIVES, _NOUNS, _PREDICATES)]
        sentence = " ".join(parts) + "."
        if sentence not in seen:
            seen.add(sentence)
            sentences.append(sentence)
            words_so_far += len(sentence.split())
    return sentences
