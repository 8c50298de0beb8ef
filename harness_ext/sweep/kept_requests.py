"""The requests of a sweep and their token ids, which are the same in every trial: made once, and kept."""

from __future__ import annotations

import pickle
import sys
from array import array
from collections.abc import Callable
from typing import Any

from harness_ext.sweep.random_states import random_state, words_drawn

MOST_BYTES = 2**28

Encode = Callable[[str, str], tuple[list[int], list[int]]]


class KeptRequests:
    """A task's ``build_all_requests`` that makes the requests once. lm-eval's own makes them in every evaluation.

    Each call leaves new requests without answers in the task. They are made again where lm-eval passes other arguments, where the task has
    another configuration, where making them draws random numbers, and where they cannot be copied by pickle.

    Args:
        task: a task of lm-eval.
    """

    def __init__(self, task: Any) -> None:
        self._task = task
        self._key, self._pickled = "", b""

    def __call__(self, **arguments: Any) -> None:
        key = repr((arguments, self._task.dump_config()))  # of functions and chat templates, it has the addresses
        if not self._pickled or key != self._key:
            before = random_state()
            type(self._task).build_all_requests(self._task, **arguments)
            self._key = key
            self._pickled = _pickled(self._task.instances) if words_drawn(before, random_state()) == 0 else b""
        if self._pickled:  # a copy also at first: a task may change its documents
            self._task._instances = pickle.loads(self._pickled)


class KeptTokens:
    """Token ids of prompts and continuations. What does not fit is encoded each time.

    Args:
        most: bytes that the token ids and their texts may take.
    """

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._room = most
        self._prompts: dict[str, array[int]] = {}
        self._pairs: dict[tuple[str, str], tuple[array[int], array[int]]] = {}

    def of(self, prompt: str, continuation: str, encode: Encode) -> tuple[list[int], list[int]]:
        """The token ids of a prompt and of its continuation, which are those of ``encode``."""
        if kept := self._pairs.get((prompt, continuation)):
            return kept[0].tolist(), kept[1].tolist()
        ids, following = encode(prompt, continuation)
        kept_ids, kept_following = self._prompts.get(prompt), array("i", following)
        pair = (prompt, continuation)
        needed = sys.getsizeof(kept_following) + sys.getsizeof(continuation) + 2 * sys.getsizeof(pair)
        if kept_ids is None:
            kept_ids = array("i", ids)
            needed += sys.getsizeof(kept_ids) + sys.getsizeof(prompt)
        if needed <= self._room:
            self._room -= needed
            self._pairs[pair] = self._prompts.setdefault(prompt, kept_ids), kept_following
        return ids, following


def _pickled(requests: list[Any]) -> bytes:
    """Requests as bytes, or nothing where a document cannot be copied by them."""
    try:
        pickled = pickle.dumps(requests, pickle.HIGHEST_PROTOCOL)
        pickle.loads(pickled)
    except Exception:  # a document may hold anything, and raise anything
        return b""
    return pickled
