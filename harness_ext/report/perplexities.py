"""Reads the perplexities in results of lm-eval: of the text of a sweep, and of lm-eval's own tasks such as wikitext."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness_ext.sweep.scores import is_number

METRICS = ("token_perplexity", "word_perplexity", "perplexity")
"""The scores that are perplexities. A task counts with the first of them that it has."""


def is_perplexity(metric: str) -> bool:
    """Whether a score of lm-eval is a perplexity, or the same in bits; no share of right answers."""
    return metric.endswith("perplexity") or metric == "bits_per_byte"


@dataclass(frozen=True)
class Perplexity:
    """A perplexity of one trial.

    Args:
        metric: its name, which says per token or per word.
        value: at least 1; infinite or NaN in models that are damaged beyond measure.
        text: of what, in words. Perplexities of different texts, windows or tokens do not compare.
    """

    metric: str
    value: float
    text: str


def perplexities_of(results: Mapping[str, Any]) -> dict[str, Perplexity]:
    """The perplexities in results, by task."""
    found: dict[str, Perplexity] = {}
    for task, scores in results["results"].items():
        names = [(metric, name) for metric in METRICS for name in scores if name.partition(",")[0] == metric and "," in name]
        if names and task in results.get("configs", {}) and is_number(scores[names[0][1]]):
            metric, name = names[0]
            found[task] = Perplexity(metric, float(scores[name]), _text(task, results))
    return found


def _text(task: str, results: Mapping[str, Any]) -> str:
    metadata = results["configs"][task].get("metadata") or {}
    if "text_digest" in metadata:
        windows = f"windows of {metadata['window']} tokens, BOS: {metadata['bos']}" if metadata.get("window") else "one window"
        return f"{metadata.get('text', 'text')} ({metadata['text_digest']}), {windows}"
    items = results.get("task_hashes", {}).get(task)
    return f"{task} {results.get('versions', {}).get(task, '')}".strip() + (f" ({str(items)[:16]})" if items else "")
