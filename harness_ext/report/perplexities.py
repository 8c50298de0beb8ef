"""Reads the perplexities in results of lm-eval: of the text of a sweep, and of lm-eval's own tasks such as wikitext."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from harness_ext.errors import shortened
from harness_ext.sweep.scores import is_number

METRICS = ("token_perplexity", "word_perplexity", "perplexity")
"""The scores that are perplexities. A task counts with the first of them that it has."""
ROUNDING = 1e-3  # relatively: how far perplexities of one model on two machines may be apart
LARGEST = 1e100  # what is larger has no mean; a model that guesses among all tokens is far below


def is_perplexity(metric: str) -> bool:
    """Whether a score of lm-eval is a perplexity, or the same in bits; no share of right answers."""
    return metric.endswith("perplexity") or metric == "bits_per_byte"


@dataclass(frozen=True)
class Key:
    """What a perplexity is of. Perplexities of different texts, windows or tokens do not compare.

    Args:
        metric: its name, which says per token or per word.
        identity: what decides it beside the model: the tokens, or the version, number of documents and longest input of a task.
    """

    task: str
    metric: str
    identity: tuple[str, ...]


@dataclass(frozen=True)
class Perplexity:
    """A perplexity of one trial.

    Args:
        value: above 0; infinite or NaN in models that are damaged beyond measure.
        text: the name of what was read, in words.
    """

    value: float
    text: str

    @property
    def finite(self) -> bool:
        return 0 < self.value < LARGEST

    def same(self, other: Perplexity) -> bool:
        """Whether two perplexities of one key are those of one model, but for rounding."""
        return math.isclose(self.value, other.value, rel_tol=ROUNDING) or (not self.finite and not other.finite)


def perplexities_of(results: Mapping[str, Any]) -> dict[Key, Perplexity]:
    """The perplexities in results."""
    found: dict[Key, Perplexity] = {}
    for task, scores in results["results"].items():
        names = [(metric, name) for metric in METRICS for name in scores if name.partition(",")[0] == metric and "," in name]
        if not names or task not in results.get("configs", {}) or not is_number(scores[names[0][1]]):
            continue
        metric, name = names[0]
        value = float(scores[name]) if abs(scores[name]) < LARGEST or scores[name] != scores[name] else math.inf
        metadata = results["configs"][task].get("metadata") or {}
        identity, text = _of_text(results, metadata) if "text_digest" in metadata else _of_task(task, results)
        found[Key(task, metric, identity)] = Perplexity(value, text)
    return found


def _of_text(results: Mapping[str, Any], metadata: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
    """Of the text of a sweep. Records without the digest of the tokens say of what text, and in which windows."""
    window = metadata.get("window")
    tokens = (results.get("perplexity") or {}).get("tokens_digest")
    decisive = (tokens,) if tokens else (metadata["text_digest"], window, metadata.get("bos"))
    name = shortened(_printable(PurePath(str(metadata.get("text", "text"))).name))
    return tuple(map(str, decisive)), f"{name}, windows of {window} tokens"


def _of_task(task: str, results: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
    """Of a task of lm-eval. It has no digest of the documents without their records, and their number tells a --limit."""
    documents = (results.get("n-samples", {}).get(task) or {}).get("effective")
    version = results.get("versions", {}).get(task)
    return tuple(map(str, (version, documents, results.get("max_length")))), _printable(task)


def _printable(text: str) -> str:
    """The text with escapes for control characters, and for what is no Unicode, which figures and tables do not take."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
