"""Text that the model writes itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from harness_ext import BadOptionError, Calibration, CalibrationError, HarnessExtError, NumericalError, kept_generators, one_line, progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH = 64
INSTEAD = "give a file of text, calibration=FILE, instead"


class SelfGenerated(Calibration):
    """Text sampled from the dense model, starting at its first token. It needs no data."""

    name: ClassVar[str] = "self"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0:
            raise BadOptionError(f"calibration.temperature={self.temperature}: want a number above 0")

    def input_ids(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> torch.Tensor:
        length = self.length_for(model)
        first = self._first(model, tokenizer)
        if not model.can_generate():
            raise CalibrationError(f"calibration 'self': {type(model).__name__} has no generate(): {INSTEAD}")
        with kept_generators(seed=self.seed):
            shape = (self.samples, 1)
            starts = torch.randint(model.config.get_text_config().vocab_size, shape) if first is None else torch.full(shape, first)
            batches = torch.split(starts.to(model.device), BATCH)
            with self._plain_sampling(model, length), progress("calibration text", len(batches) * (length - 1)) as advance:
                rows = [self._continue(model, batch, advance) for batch in batches]
        return torch.cat(rows)

    def cache_key(self, model: PreTrainedModel, model_digest: str) -> Mapping[str, Any] | None:
        """By the weights, the configuration and the class of the model. Not kept for a model with hooks, or with code of its own."""
        if any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):
            return None
        if type(model).__module__.partition(".")[0] != "transformers":
            return None
        config = {name: value for name, value in model.config.to_dict().items() if name not in ("_name_or_path", "transformers_version")}
        return {
            "model": model_digest, "class": type(model).__qualname__, "config": config, "length": self.length_for(model),
            "attention": getattr(model.config, "_attn_implementation", None), "eos": getattr(model.generation_config, "eos_token_id", None),
        }  # fmt: skip

    def _first(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> int | None:
        """The first token of each sequence; None for any. ``bos=auto`` takes the end of a text where the model knows no beginning."""
        if tokenizer is not None:
            self.check_tokenizer(tokenizer)
            if self.begins_with_bos(tokenizer):
                return int(tokenizer.bos_token_id)
        config = model.config.get_text_config()
        known = [token for name in ("bos_token_id", "eos_token_id") if isinstance(token := getattr(config, name, None), int)]
        if self.bos is True and not isinstance(getattr(config, "bos_token_id", None), int):
            raise CalibrationError("calibration.bos=True: the configuration of the model names no BOS token, and there is no tokenizer")
        return known[0] if self.bos is not False and known else None

    @contextmanager
    def _plain_sampling(self, model: PreTrainedModel, length: int) -> Iterator[None]:
        """Replaces the generation settings of the checkpoint: a penalty or a ``max_new_tokens`` would change the calibration text."""
        from transformers import GenerationConfig

        own: Any = model.generation_config
        model.generation_config = GenerationConfig(
            do_sample=True, temperature=float(self.temperature), top_k=0, top_p=1.0, min_length=length, max_length=length,
            eos_token_id=getattr(own, "eos_token_id", None), pad_token_id=0, use_cache=True,
        )  # fmt: skip
        try:
            yield
        finally:
            model.generation_config = own

    def _continue(self, model: PreTrainedModel, ids: torch.Tensor, advance: Callable[[], None]) -> torch.Tensor:
        def written(ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
            advance()
            return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)

        from harness_ext_calibrations.reserved_cache import reserved_cache

        try:
            return model.generate(  # type: ignore[no-any-return]
                input_ids=ids, attention_mask=torch.ones_like(ids), stopping_criteria=[written],
                **reserved_cache(model, model.generation_config.max_length),
            )  # fmt: skip
        except (HarnessExtError, torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:  # the code of a model may fail in any way
            if "probability tensor" in str(error):
                raise NumericalError("the model's output has NaN or infinite values: it cannot write its own calibration text") from error
            raise CalibrationError(
                f"calibration 'self': {type(model).__name__} cannot write text ({type(error).__name__}: {one_line(error)}): {INSTEAD}"
            ) from error
