"""Text that the model writes itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from harness_ext import BadOptionError, Calibration, NumericalError, progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH = 64


class SelfGenerated(Calibration):
    """Samples from the dense model, from its first token on: needs no data, and is what the model takes text to be."""

    name: ClassVar[str] = "self"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0:
            raise BadOptionError(f"calibration.temperature={self.temperature}: want a number above 0")

    def input_ids(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> torch.Tensor:
        length = self.length_for(model)
        config = model.config.get_text_config()
        first = next((token for token in (config.bos_token_id, config.eos_token_id) if isinstance(token, int)), None)
        with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
            torch.manual_seed(self.seed)
            shape = (self.samples, 1)
            starts = torch.randint(config.vocab_size, shape) if first is None else torch.full(shape, first)
            batches = torch.split(starts.to(model.device), BATCH)
            with self._plain_sampling(model, length), progress("calibration text", len(batches) * (length - 1)) as advance:
                rows = [self._continue(model, batch, advance) for batch in batches]
        return torch.cat(rows)

    @contextmanager
    def _plain_sampling(self, model: PreTrainedModel, length: int) -> Iterator[None]:
        """Puts the checkpoint's own generation settings aside: a penalty or a ``max_new_tokens`` would end up in the calibration text."""
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

        try:
            return model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), stopping_criteria=[written])  # type: ignore[no-any-return]
        except RuntimeError as error:
            if "probability tensor" not in str(error):
                raise
            raise NumericalError("the model's output has NaN or infinite values: it cannot write its own calibration text") from error
