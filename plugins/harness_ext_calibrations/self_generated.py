"""Text that the model writes itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch

from harness_ext import BadOptionError, Calibration

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
        first = next((token for token in (model.config.bos_token_id, model.config.eos_token_id) if isinstance(token, int)), None)
        with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
            torch.manual_seed(self.seed)
            if first is None:
                starts = torch.randint(model.config.get_text_config().vocab_size, (self.samples, 1))
            else:
                starts = torch.full((self.samples, 1), first)
            rows = [self._continue(model, batch.to(model.device), length) for batch in torch.split(starts, BATCH)]
        return torch.cat(rows)

    def _continue(self, model: PreTrainedModel, ids: torch.Tensor, length: int) -> torch.Tensor:
        return model.generate(  # type: ignore[no-any-return]
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=float(self.temperature), top_k=0, top_p=1.0,
            min_length=length, max_length=length, pad_token_id=0, use_cache=True,
        )  # fmt: skip
