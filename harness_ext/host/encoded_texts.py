"""Token ids of the texts of requests: each text is encoded once, and many at a time.

lm-eval encodes the prompt of an item again for each of its answer choices, one text after the other. A fast tokenizer encodes a list on all
cores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain

AT_ONCE = 1024  # texts

EncodeMany = Callable[[Sequence[str]], list[list[int]]]


class EncodedTexts:
    """The token ids of texts that are known beforehand, in the order in which they will be asked for. The ids are kept until ``clear``.

    Args:
        encode_many: the token ids of texts.
    """

    def __init__(self, encode_many: EncodeMany) -> None:
        self._encode_many = encode_many
        self._texts: list[str] = []
        self._places: dict[str, int] = {}
        self._ids: dict[str, list[int]] = {}

    def expect(self, texts: Iterable[str]) -> None:
        """Takes note of texts that will be asked for. None is encoded yet. Texts that were expected before are forgotten."""
        self._texts = list(dict.fromkeys(texts))
        self._places = {text: place for place, text in enumerate(self._texts)}
        self._ids = {}

    def clear(self) -> None:
        """Forgets all texts and their token ids."""
        self.expect([])

    def of(self, text: str) -> list[int] | None:
        """The token ids of a text, or None if it was not expected. The texts that follow it are encoded with it."""
        if text not in self._ids:
            if text not in self._places:
                return None
            start = self._places[text]
            following = [one for one in self._texts[start : start + AT_ONCE] if one not in self._ids]
            self._ids |= zip(following, self._encode_many(following), strict=True)
        return list(self._ids[text])


def texts_of(pairs: Iterable[tuple[str, str]]) -> Iterable[str]:
    """The texts that lm-eval encodes for requests to a causal model: with their continuation and without, as its ``_encode_pair`` does.

    Args:
        pairs: prompts and continuations. An empty prompt is encoded otherwise, and left out.
    """
    return chain.from_iterable((prompt + continuation, prompt.rstrip()) for prompt, continuation in pairs if prompt)
