"""``harness-ext perplexity``: what it does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness_ext.commands.model_job import ModelJob, quiet
from harness_ext.engine.perplexity import BOS, Protocol, perplexity, windows
from harness_ext.engine.run import apply
from harness_ext.errors import UnsupportedModelError, shortened
from harness_ext.host.model_folder import model_folder
from harness_ext.host.preflight import check_config, check_plan, check_tokenizer, without_weights
from harness_ext.plugins import Plugins
from harness_ext.tasks import corpora
from harness_ext.weights.checkpoint_record import in_words, of_checkpoint


@dataclass(frozen=True, kw_only=True)
class MeasureJob(ModelJob):
    """A model, how it is to be pruned before, and the text.

    Args:
        text: a text file, or a name in :data:`harness_ext.tasks.corpora.FROM_THE_HUB`.
        window, bos: as for :class:`harness_ext.engine.perplexity.Protocol`.
        batch_size: windows in a forward pass.
    """

    text: str
    window: int | None = None
    bos: str = BOS[0]
    batch_size: int = 1


def run(job: MeasureJob) -> dict[str, Any]:
    """Does the job.

    Returns:
        JSON values: ``pretrained``, ``text`` (its name and digest), ``bos``, the fields of
        :meth:`harness_ext.engine.perplexity.Perplexity.describe`, and ``pruning``, the pruning record.

    Raises:
        HarnessExtError: whatever is wrong; with the options and the text, before any weight is loaded.
    """
    plugins = Plugins()
    plan = job.plan(plugins)
    job.check()
    protocol = Protocol(job.window, job.bos)
    corpora.check(job.text)
    folder = model_folder(plugins, job.pretrained, job.gguf_file)
    with quiet():
        config = job.config(folder)
        check_config(config, job.called)
        skeleton = without_weights(config, job.called, trust_remote_code=job.trust_remote_code)
        window = protocol.window_for(skeleton)
        if plan.changes:
            check_plan(plan, skeleton)
        tokenizer = job.tokenizer(folder)
        check_tokenizer(plan, tokenizer, folder)
        if tokenizer is None:
            raise UnsupportedModelError(f"{job.called}: there is no tokenizer in {folder}, and perplexity needs one")
        corpus = corpora.read(job.text)
        cut, dropped = windows(corpus.text, tokenizer, window, job.bos, most=corpus.most)
        model = job.load(folder)
        record = apply(plan, model, tokenizer) | of_checkpoint(folder, revision=job.revision)
        found = perplexity(model, cut, dropped=dropped, batch_size=job.batch_size)
    text = {"name": corpus.name, "digest": corpus.digest}
    return {"pretrained": job.pretrained, "text": text, "bos": job.bos, **found.describe(), "pruning": record}


def summary(measured: Mapping[str, Any]) -> str:
    """The perplexity and how it was measured, in one line.

    Args:
        measured: as :func:`run` returns it.
    """
    stderr, model = measured["stderr"], in_words(measured["pruning"])
    spread = "" if stderr is None else f" ± {stderr:.4g}"
    return (
        f"{shortened(measured['pretrained'])} ({model}): perplexity {measured['token_perplexity']:.4f}{spread} on "
        f"{shortened(measured['text']['name'])}, {measured['windows']} windows of {measured['window']} tokens, bos={measured['bos']}"
    )
