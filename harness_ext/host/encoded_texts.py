"""Token ids of the texts of requests: each text is encoded once, and many at a time.

lm-eval encodes the prompt of an item again for each of its answer choices, one text after the other. A fast tokenizer encodes a list on all
cores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

AT_ONCE = 2**20  # characters in one call: what a tokenizer returns takes about 140 bytes for each token
LIBRARY = "transformers.tokenization_utils"  # the modules of the classes that tokenizers derive from

EncodeMany = Callable[[Sequence[str]], list[list[int]]]


class EncodedTexts:
    """The token ids of texts that are known beforehand, in the order in which they will be asked for.

    The ids are kept until the next ``expect`` or ``clear``.

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
            following = list(self._from(self._places[text]))
            self._ids |= zip(following, self._encode_many(following), strict=True)
        return list(self._ids[text])

    def _from(self, place: int) -> Iterator[str]:
        """The texts from a place on that are not encoded yet: at least one, until they have ``AT_ONCE`` characters together."""
        room = AT_ONCE
        for text in islice(self._texts, place, None):
            if room <= 0:
                return
            if text not in self._ids:
                room -= len(text)
                yield text


def is_stock(tokenizer: Any) -> bool:
    """Whether a tokenizer encodes a list as it encodes each text: it is a fast one, and does not override how texts are encoded."""
    methods = (getattr(type(tokenizer), name, None) for name in ("encode", "__call__", "_encode_plus"))
    of_library = all(getattr(method, "__module__", "").startswith(LIBRARY) for method in methods)
    return bool(getattr(tokenizer, "is_fast", False)) and of_library and not {"encode", "_encode_plus"} & vars(tokenizer).keys()


def texts_of(pairs: Iterable[tuple[str, str]]) -> Iterable[str]:
    """The texts that lm-eval encodes for requests to a causal model: with their continuation and without, as its ``_encode_pair`` does.

    Args:
        pairs: prompts and continuations. Those with an empty prompt are left out: lm-eval encodes them differently.
    """
    return chain.from_iterable((prompt + continuation, prompt.rstrip()) for prompt, continuation in pairs if prompt)
