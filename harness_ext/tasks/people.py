"""The synthetic people whose facts the embedded models were trained on.

There are 32,768 names: 128 first names x 256 last names, made of random syllables. The digest of the name assigns each person to one of
three groups. Memorised people have fixed facts. Other people occur only in training passages, with facts that change each time. Unseen
people do not occur in training. The four facts of a memorised person are drawn uniformly and independently of the name, so that a name
tells nothing about answers. A value has two words, of 64 each: a fact is 12 bits.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FIRST_NAMES, LAST_NAMES = 128, 256
MEMORISED = 8192
WORDS = 64  # for each of the two words of a value
MET_IN_PASSAGES = 16384

_ONSETS = "b d f g h j k l m n p r s t v z br dr gr kl pr st tr".split()
_VOWELS = "a e i o u".split()
_CODAS = "l n r s k m th x".split()

PROFESSIONS = tuple(
    """accountant actor architect astronomer baker barber biologist blacksmith bookbinder botanist brewer butcher carpenter
chemist cobbler composer cook curator dancer dentist detective diver doctor editor electrician engineer farmer fisherman florist
gardener geologist glazier goldsmith historian illustrator interpreter jeweller journalist judge lawyer librarian locksmith
mason mathematician mechanic midwife miner musician nurse optician painter pharmacist photographer pilot plumber poet potter
printer roofer sailor sculptor tailor teacher weaver""".split()
)

_KINDS = """alpine antique arctic autumn charity classic coastal competitive country daylight desert early electric evening experimental
festival floating formal garden global harbour heavy historic holiday imperial indoor island junior lakeside late local lunar marine
midnight miniature mobile modern morning mountain national night nomadic northern outdoor palace private public quiet regional river
royal rural seasonal senior silent solo southern spring street summer team tropical village winter""".split()

_HOBBIES = """acrobatics archery astrology badminton ballet basketry beekeeping billiards birdwatching bowling boxing calligraphy
camping canoeing ceramics chess climbing collage cricket croquet crosswords cycling darts dominoes embroidery falconry fencing
fishing foraging fossicking geocaching gliding golf gymnastics handball hiking hockey hurdling improvisation juggling karate
kayaking kites knitting lacrosse macrame origami orienteering parkour pilates polo puppetry quilting rafting rowing rugby sailing
skating skiing snorkelling squash surfing tennis yoga""".split()


class Attribute(NamedTuple):
    """One kind of fact: its question, the sentence that states it, and its possible values."""

    name: str
    question: str
    statement: str
    first: tuple[str, ...]
    second: tuple[str, ...]

    @property
    def values(self) -> tuple[str, ...]:
        """Each first word with each second word: value ``i`` has the words ``i // 64`` and ``i % 64``."""
        return _values(self.first, self.second)


@lru_cache(maxsize=8)
def _values(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{one} {other}" for one in first for other in second)


class Person(NamedTuple):
    first: str
    last: str

    def __str__(self) -> str:
        return f"{self.first} {self.last}"


@dataclass(frozen=True, eq=False)
class People:
    """The synthetic population, made by :func:`population`."""

    attributes: tuple[Attribute, ...]
    memorised: tuple[Person, ...]
    met: tuple[Person, ...]
    unseen: tuple[Person, ...]
    facts: NDArray[Any]  # int64 [memorised, attributes]: the index of the value

    def answer(self, person: int, attribute: int) -> str:
        """The value of an attribute of a memorised person."""
        return self.attributes[attribute].values[int(self.facts[person, attribute])]

    def words(self) -> list[str]:
        """All names and values, for a tokenizer with one token for each."""
        everyone = self.memorised + self.met + self.unseen
        names = sorted({person.first for person in everyone}) + sorted({person.last for person in everyone})
        return names + [word for attribute in self.attributes for word in (*attribute.first, *attribute.second)]


@lru_cache(maxsize=4)
def population(seed: int = 0) -> People:
    """Makes the people of a seed. The embedded models were trained on seed 0."""
    rng = np.random.RandomState([seed, 0x9E0B1E])
    taken: set[str] = set()
    first, last = _names(rng, FIRST_NAMES, taken, syllables=2), _names(rng, LAST_NAMES, taken, syllables=2)
    places, regions, firms, branches = (tuple(_names(rng, WORDS, taken, syllables=count)) for count in (3, 2, 3, 2))
    attributes = (
        Attribute("birthplace", "Where was {} born?", "{} was born in {}.", places, regions),
        Attribute("employer", "Who employs {}?", "{} works for {}.", firms, branches),
        Attribute("job", "What job has {}?", "The job of {} is {}.", tuple(_KINDS), PROFESSIONS),
        Attribute("hobby", "What does {} enjoy?", "{} enjoys {}.", tuple(_KINDS), tuple(_HOBBIES)),
    )
    names = sorted((Person(a, b) for a in first for b in last), key=lambda person: hashlib.sha256(str(person).encode()).digest())
    facts = rng.randint(0, WORDS**2, size=(MEMORISED, len(attributes))).astype(np.int64)
    met_until = MEMORISED + MET_IN_PASSAGES
    return People(attributes, tuple(names[:MEMORISED]), tuple(names[MEMORISED:met_until]), tuple(names[met_until:]), facts)


def _names(rng: np.random.RandomState, count: int, taken: set[str], *, syllables: int) -> list[str]:
    """Makes ``count`` new pronounceable names, and adds them to ``taken``."""
    names: list[str] = []
    while len(names) < count:
        parts = [_ONSETS[rng.randint(len(_ONSETS))] + _VOWELS[rng.randint(len(_VOWELS))] for _ in range(syllables)]
        name = ("".join(parts) + _CODAS[rng.randint(len(_CODAS))]).capitalize()
        if name not in taken:
            taken.add(name)
            names.append(name)
    return names
