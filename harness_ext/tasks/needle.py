"""A needle that shares no content word with the question, after NoLiMa (Modarressi et al., arXiv 2502.05167).

A text tells which people have which things, each of another category. The question names a category: the text says the trumpet, and the
question the musical instrument. All else is filler. The dial is the length of the text in words.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from harness_ext.errors import BadOptionError, did_you_mean, shown
from harness_ext.tasks.needle_text import NAMES, QUESTION_NAMES, filler, needle, question, words
from harness_ext.tasks.options import LARGEST_SEED, MOST_ITEMS, TaskOptions, checked, whole

ASKS = ("category", "word")
MOST_PEOPLE = 4  # of 20 names, each exemplar takes four others


def _check_ask(name: str, value: Any) -> None:
    if value not in ASKS:
        raise BadOptionError(f"{name}={shown(value)}: want {' or '.join(ASKS)}.{did_you_mean(str(value), ASKS)}")


class Options(TaskOptions):
    """The options of the tasks of needles, with the prefix ``needle_``.

    Attributes:
        length: Number of words of filler: the dial. 100 words are about 130 tokens.
        people: Number of people in the text, which are the choices.
        shots: Number of short texts before, about other people and without filler, each with its question and answer.
        ask: ``category``, or ``word`` as a control: the question then repeats the word of the text.
    """

    prefix: ClassVar[str] = "needle_"
    items: int = whole(1024, 1, MOST_ITEMS)
    length: int = whole(400, 0, 100_000)
    people: int = whole(4, 2, MOST_PEOPLE)
    shots: int = whole(2, 0, 4)
    ask: str = checked("category", _check_ask)
    seed: int = whole(0, 0, LARGEST_SEED)


def item(options: Options, index: int) -> dict[str, Any]:
    """Makes one item. It depends on the arguments only.

    The text is cut into as many equal parts as there are people, with one of them in each. Over items, the needle takes every part, and
    within the part every place.

    Returns:
        ``prompt``, ``choices`` (the names), ``target``, ``depth`` (of the needle, from 0 at the beginning to 1 at the end) and ``needle``.
    """
    rng = np.random.RandomState([options.seed, 0x4EED, options.length, options.people, index])
    names = [NAMES[place] for place in rng.permutation(len(NAMES))]
    people, turn = options.people, index // options.people
    shots = []
    for shot in range(options.shots):
        asked = int(rng.randint(people))
        their = names[people * (shot + 1) : people * (shot + 2)]
        sentences, questions = _things(rng, their, options.ask)
        shots.append(f"{' '.join(sentences)}\n{questions[asked]} {their[asked]}")
    sentences, questions = _things(rng, names[:people], options.ask)
    asked = index % people
    text = filler(rng, options.length)
    bounds = [part * (len(text) + 1) // people for part in range(people + 1)]
    places = [int(rng.randint(low, max(high, low + 1))) for low, high in pairwise(bounds)]
    places[asked] = bounds[asked] + turn % max(bounds[asked + 1] - bounds[asked], 1)
    for place, sentence in reversed(list(zip(places, sentences, strict=True))):
        text.insert(place, sentence)
    target = (index + turn) % people
    order = rng.permutation(np.delete(np.arange(people), asked)).tolist()
    order.insert(target, asked)
    return {
        "prompt": "\n\n".join([*shots, f"{' '.join(text)}\n{questions[asked]}"]),
        "choices": [names[person] for person in order],
        "target": target,
        "depth": text.index(sentences[asked]) / max(len(text) - 1, 1),
        "needle": sentences[asked],
    }


def _things(rng: np.random.RandomState, names: list[str], ask: str) -> tuple[list[str], list[str]]:
    """A sentence for each person, about things of different categories, and the question whose answer is the person."""
    categories = sorted(QUESTION_NAMES)
    sentences, questions = [], []
    for name, place in zip(names, rng.permutation(len(categories)), strict=False):
        word = words()[categories[place]][rng.randint(len(words()[categories[place]]))]
        sentences.append(needle(word, name))
        questions.append(question(QUESTION_NAMES[categories[place]] if ask == "category" else word))
    return sentences, questions
