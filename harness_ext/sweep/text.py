"""Perplexity as a score of each trial of a sweep, beside its tasks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from harness_ext.engine.perplexity import Perplexity, Protocol, perplexity, windows
from harness_ext.errors import BadOptionError, HarnessExtError, shortened
from harness_ext.plugins import Plugins
from harness_ext.sweep.fields import Sweep
from harness_ext.sweep.grid import TrialSpec
from harness_ext.sweep.preflight import place_of, skeleton, tokenizer_of
from harness_ext.tasks import corpora
from harness_ext.tasks.corpora import Corpus

TASK, METRIC, VERSION = "perplexity", "token_perplexity", 1


def text_of(sweep: Sweep) -> Corpus | None:
    """The text that trials measure their perplexity on; None if none was asked for.

    Raises:
        BadOptionError: no such text.
        TextError: it cannot be read.
    """
    if sweep.perplexity is None:
        return None
    if TASK in sweep.tasks:
        raise BadOptionError(f"--perplexity: a task of the sweep is called {TASK!r} as well: leave one out")
    return corpora.read(sweep.perplexity)


def identity(sweep: Sweep, text: Corpus) -> dict[str, Any]:
    """What decides the perplexity of a model, as JSON values."""
    return {"text": text.digest, "window": sweep.perplexity_window, "bos": sweep.perplexity_bos}


def check_text(plugins: Plugins, sweep: Sweep, text: Corpus, trials: Iterable[TrialSpec]) -> dict[str, tuple[int, int]]:
    """Checks that the text fills a window of each model, before any weight is loaded. A model or tokenizer that cannot be made is left
    out: loading it says why.

    Returns:
        how many windows each model reads, and how many tokens are in a window.

    Raises:
        HarnessExtError: the text is too short, or the window longer than a model takes; names the model.
    """
    shapes = {}
    for trial in {trial.pretrained: trial for trial in trials}.values():
        try:
            model = skeleton(plugins, trial.pretrained, place_of(trial))
            tokenizer = tokenizer_of(plugins, trial)
        except Exception:  # whatever transformers or the hub raise
            continue
        if model is None:
            continue
        try:
            cut, _ = _cut(sweep, text, model, tokenizer)
        except HarnessExtError as error:
            raise type(error)(f"--perplexity {shortened(text.name)}, {shortened(trial.pretrained)}: {error}") from error
        shapes[trial.pretrained] = len(cut), cut.shape[1]
    return shapes


def measure(sweep: Sweep, text: Corpus, lm: Any) -> Perplexity:
    """The perplexity of a loaded model.

    Args:
        lm: a model of lm-eval, with ``model`` and ``tokenizer``.

    Raises:
        HarnessExtError: the text is too short, or a probability is not finite.
    """
    cut, dropped = _cut(sweep, text, lm.model, lm.tokenizer)
    return perplexity(lm.model, cut, dropped=dropped)


def add(results: dict[str, Any], sweep: Sweep, text: Corpus, found: Perplexity) -> str:
    """Adds a perplexity to the results of lm-eval as if it were the score of a task.

    Returns:
        a digest of the token ids and the protocol: perplexities with equal digests can be compared.
    """
    count = len(found.losses)
    stderr = "N/A" if found.stderr is None else found.stderr
    scores = {"alias": TASK, "sample_len": count, f"{METRIC},none": found.value, f"{METRIC}_stderr,none": stderr}
    protocol = {"text": text.name, "text_digest": text.digest, "window": found.window, "bos": sweep.perplexity_bos}
    config = {
        "task": TASK, "metric_list": [{"metric": METRIC, "higher_is_better": False}], "output_type": "loglikelihood_rolling",
        "metadata": {"version": VERSION, **protocol},
    }  # fmt: skip
    for part, value in (
        ("results", scores), ("configs", config), ("versions", VERSION), ("n-shot", 0), ("higher_is_better", {METRIC: False}),
        ("n-samples", {"original": count, "effective": count}), ("group_subtasks", []),
    ):  # fmt: skip
        results.setdefault(part, {})[TASK] = value
    results[TASK] = protocol | found.describe()
    decisive = [found.digest, found.window, sweep.perplexity_bos, VERSION]
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:16]


def _cut(sweep: Sweep, text: Corpus, model: Any, tokenizer: Any) -> tuple[Any, int]:
    protocol = Protocol(sweep.perplexity_window, sweep.perplexity_bos)
    return windows(text.text, tokenizer, protocol.window_for(model), protocol.bos, most=text.most)
