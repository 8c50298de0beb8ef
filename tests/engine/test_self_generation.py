"""The text that the model writes is that of ``model.generate``, with a cache whose memory is reserved at once."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from harness_ext_calibrations.reserved_cache import reserved_cache
from harness_ext_calibrations.self_generated import SelfGenerated
from transformers import GenerationConfig


def of_generate(model: Any, samples: int, length: int) -> torch.Tensor:
    """By transformers alone, with its own cache."""
    plain = GenerationConfig(do_sample=True, top_k=0, top_p=1.0, min_length=length, max_length=length, eos_token_id=0, pad_token_id=0)
    starts = torch.zeros(samples, 1, dtype=torch.int64)
    torch.manual_seed(0)
    return model.generate(input_ids=starts, attention_mask=torch.ones_like(starts), generation_config=plain)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_is_the_text_of_generate(name: str) -> None:
    model = tiny.model(name)
    found = SelfGenerated(samples=5, length=24).input_ids(model, tiny.tokenizer())
    assert torch.equal(found, of_generate(model, 5, 24))


def test_is_the_text_of_generate_for_eager_attention_and_bfloat16() -> None:
    model = tiny.model("llama-gqa-tied", dtype=torch.bfloat16)
    model.set_attn_implementation("eager")
    found = SelfGenerated(samples=5, length=24).input_ids(model, tiny.tokenizer())
    assert torch.equal(found, of_generate(model, 5, 24))


def test_the_cache_is_used_where_all_layers_attend_to_all_tokens() -> None:
    used = {name: bool(reserved_cache(tiny.model(name), 8)) for name in tiny.ARCHITECTURES}
    assert used["llama"]
    assert used["gpt2"]
    assert not used["mistral"]


@pytest.mark.parametrize("length", [2, 5, 64])
def test_the_cache_holds_what_was_put_into_it(length: int) -> None:
    model, ids = tiny.model(), tiny.token_ids(3, 12)
    cache = reserved_cache(model, length)
    with torch.inference_mode():
        for part in torch.split(ids, [4, 1, 1, 6], 1):
            logits = model(input_ids=part, **cache).logits[:, -1]
        expected = model(input_ids=ids).logits[:, -1]
    torch.testing.assert_close(logits, expected)
