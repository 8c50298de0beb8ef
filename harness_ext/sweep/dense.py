"""A model that is loaded once and pruned from its dense weights for every trial. A copy of the dense weights stays in host memory."""

from __future__ import annotations

import copy
import dataclasses
import gc
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from harness_ext.engine.plan import Plan
from harness_ext.engine.run import apply
from harness_ext.engine.terminal import progress
from harness_ext.errors import HarnessExtError
from harness_ext.host.batch_size import default_batch_size
from harness_ext.host.model import PrunedHFLM
from harness_ext.method.calibration import Calibration
from harness_ext.method.pruner import StructuredPruner
from harness_ext.sweep.fields import Sweep
from harness_ext.sweep.kept_requests import KeptTokens
from harness_ext.sweep.random_states import RandomState, random_state, set_random_state, set_seeds


class RestoreError(HarnessExtError):
    """The dense weights were not restored bit for bit."""


class _InSweep(PrunedHFLM):
    """Shows the progress of requests below the bar of the sweep, or in the log. lm-eval's own bars would overwrite that bar."""

    cache_hook: Any

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._kept_tokens = KeptTokens()

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """As in lm-eval, which encodes all requests again in every trial."""
        return self._kept_tokens.of(context, continuation, super()._encode_pair)

    def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> Any:
        with self._counted("scoring answers", requests):
            return super().loglikelihood(requests, disable_tqdm=True)

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = True) -> Any:
        with self._counted("scoring texts", requests):
            return super().loglikelihood_rolling(requests, disable_tqdm=True)

    def generate_until(self, requests: Any, disable_tqdm: bool = True) -> Any:
        with self._counted("writing answers", requests):
            return super().generate_until(requests, disable_tqdm=True)

    @contextmanager
    def _counted(self, title: str, requests: Sequence[Any]) -> Iterator[None]:
        hook = self.cache_hook
        with progress(title, len(requests)) as advance:
            self.cache_hook = _Counting(hook, advance)
            try:
                yield
            finally:
                self.cache_hook = hook


class _Counting:
    """The hook that lm-eval calls with each answer."""

    def __init__(self, hook: Any, advance: Callable[[], None]) -> None:
        self._hook, self._advance = hook, advance

    def add_partial(self, *answered: Any) -> None:
        self._hook.add_partial(*answered)
        self._advance()


class DenseModel:
    """``pruned-hf`` with a copy of its dense weights.

    It repeats exactly what ``lm_eval`` does in a separate process: set the seeds, load the model, prune it, and choose the batch size if
    none was given. Each trial begins with the random generators in the state after loading.

    Raises:
        HarnessExtError: the model cannot be loaded.
    """

    def __init__(self, sweep: Sweep, pretrained: str) -> None:
        self._sweep, self._pretrained = sweep, pretrained
        self._texts: dict[str, tuple[torch.Tensor, RandomState]] = {}
        self._load()

    @property
    def tokenizer(self) -> Any:
        return self.lm.tokenizer

    def prune(self, plan: Plan) -> dict[str, Any]:
        """Prunes ``lm`` from the dense weights, and returns the pruning record.

        Raises:
            HarnessExtError: as :func:`harness_ext.engine.run.apply`; the next call still begins with the dense weights.
        """
        self._restore()
        set_random_state(self._random)
        self._touched = plan.changes
        self._reshaped = self._touched and isinstance(plan.pruner, StructuredPruner)
        record = apply(self._with_remembered_text(plan), self.lm.model, self.lm.tokenizer)
        if record["dense_digest"] != self._digest:
            self._reshaped = True  # so that the next trial loads the model again
            raise RestoreError(
                f"{self._pretrained}: the restored dense weights have the digest {record['dense_digest']}, not {self._digest}"
            )
        record |= self.lm.checkpoint_record
        self.lm.pruning_record = record
        if self._sweep.batch_size is None:
            self.lm.batch_size_per_gpu = default_batch_size(sum(parameter.numel() for parameter in self.lm.model.parameters()))
        self.lm.batch_sizes = {}
        self.lm.compare_anew()
        return record

    def after_failure(self) -> None:
        """Frees the memory of a trial that failed, which may have run out of it."""
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _load(self) -> None:
        set_seeds()
        arguments = {"pretrained": self._pretrained, "sparsity": 0, **self._sweep.of_model()}
        beside = {"batch_size": self._sweep.batch_size or 1, "device": self._sweep.device}
        self.lm = _InSweep.create_from_arg_obj(arguments, beside)
        self._random = random_state()
        self._digest: str = self.lm.pruning_record["dense_digest"]
        self._dense_weights = {name: tensor.detach().to("cpu", copy=True) for name, tensor in self.lm.model.state_dict().items()}
        self._touched = self._reshaped = False

    def _restore(self) -> None:
        if self._reshaped:  # decoder blocks, heads or channels were removed
            del self.lm
            self.after_failure()
            self._load()
        elif self._touched:
            with torch.no_grad():
                for name, tensor in self.lm.model.state_dict().items():
                    tensor.copy_(self._dense_weights[name])
            self._touched = False

    def _with_remembered_text(self, plan: Plan) -> Plan:
        """The plan with a calibration source that remembers its text, which depends only on the dense model and the source's options."""
        source = plan.calibration
        if not plan.needs_calibration or not isinstance(source, Calibration):
            return plan
        key = json.dumps([source.name, source.options()], sort_keys=True, default=str)

        def input_ids(model: Any, tokenizer: Any) -> torch.Tensor:
            if key not in self._texts:
                self._texts[key] = source.input_ids(model, tokenizer).cpu(), random_state()
            ids, after = self._texts[key]
            set_random_state(after)
            return ids.clone()

        remembering = copy.copy(source)
        object.__setattr__(remembering, "input_ids", input_ids)  # sources are frozen
        return dataclasses.replace(plan, calibration=remembering)
