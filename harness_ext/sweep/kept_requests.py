"""The requests of a sweep and their token ids, which are the same in every trial: made once, and kept."""

from __future__ import annotations

import json
import pickle
from array import array
from collections.abc import Callable
from typing import Any

from harness_ext.sweep.random_states import random_state, words_drawn

MOST_TOKENS = 2**26  # 256 MiB
PAIR_TOKENS = 64  # what a pair takes beside its tokens

Encode = Callable[[str, str], tuple[list[int], list[int]]]


class KeptRequests:
    """A task's ``build_all_requests`` that makes the requests once. lm-eval's own makes them in every evaluation.

    Each call leaves new requests without answers in the task. They are made again where lm-eval passes other arguments, where the task has
    another configuration, where making them draws random numbers, and where they cannot be pickled.

    Args:
        task: a task of lm-eval.
    """

    def __init__(self, task: Any) -> None:
        self._task = task
        self._key, self._pickled = "", b""

    def __call__(self, **arguments: Any) -> None:
        # repr of the chat template, which is a method of the model, has the address of the model.
        key = json.dumps([arguments, self._task.dump_config()], sort_keys=True, default=repr)
        if self._pickled and key == self._key:
            self._task._instances = pickle.loads(self._pickled)
            return
        before = random_state()
        type(self._task).build_all_requests(self._task, **arguments)
        self._key = key
        self._pickled = _pickled(self._task.instances) if words_drawn(before, random_state()) == 0 else b""


class KeptTokens:
    """Token ids of prompts and continuations. What does not fit is encoded each time.

    Args:
        most: how many tokens are kept.
    """

    def __init__(self, most: int = MOST_TOKENS) -> None:
        self._room = most
        self._prompts: dict[str, array[int]] = {}
        self._pairs: dict[tuple[str, str], tuple[array[int], array[int]]] = {}

    def of(self, prompt: str, continuation: str, encode: Encode) -> tuple[list[int], list[int]]:
        """The token ids of a prompt and of its continuation, which are those of ``encode``."""
        if kept := self._pairs.get((prompt, continuation)):
            return kept[0].tolist(), kept[1].tolist()
        ids, following = encode(prompt, continuation)
        needed = PAIR_TOKENS + len(following) + (0 if prompt in self._prompts else len(ids))
        if needed <= self._room:
            self._room -= needed
            self._pairs[prompt, continuation] = self._prompts.setdefault(prompt, array("i", ids)), array("i", following)
        return ids, following


def _pickled(requests: list[Any]) -> bytes:
    try:
        return pickle.dumps(requests, pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, TypeError, AttributeError):  # documents with functions, open files and the like
        return b""
