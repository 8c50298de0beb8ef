"""What is wrapped around a model is refused in one line, and the model is left alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import architectures
import pytest
import tiny
import torch
from harness_ext_calibrations.self_generated import SelfGenerated
from torch import nn

from harness_ext import BadOptionError, HarnessExtError, PrunedHFLM, UnsupportedModelError, prune
from harness_ext.method.lengths import longest as longest_of


class Wrapper(nn.Module):
    """As FSDP and others keep a model."""

    def __init__(self, model: nn.Module, name: str) -> None:
        super().__init__()
        setattr(self, name, model)


def compile_in_place(model: Any, name: str) -> Any:
    model.get_submodule(name).compile()
    return model


def compiled_block(model: Any) -> Any:
    model.model.layers[1] = torch.compile(model.model.layers[1])
    return model


WRAPPED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "DataParallel": (nn.DataParallel, r"DataParallel is wrapped around LlamaForCausalLM: give the model itself, model\.module"),
    "module": (lambda model: Wrapper(model, "module"), r"Wrapper is wrapped around LlamaForCausalLM.*model\.module"),
    "FSDP": (lambda model: Wrapper(model, "_fsdp_wrapped_module"), r"model\._fsdp_wrapped_module"),
    "torch.compile": (torch.compile, r"OptimizedModule is wrapped around LlamaForCausalLM.*model\._orig_mod"),
    "a block, compiled": (compiled_block, r"LlamaForCausalLM\.model\.layers\.1 was compiled: prune the model first"),
    "a block, in place": (lambda model: compile_in_place(model, "model.layers.0"), r"model\.layers\.0 was compiled"),
    "a layer, in place": (lambda model: compile_in_place(model, "model.layers.0.mlp.up_proj"), r"mlp\.up_proj was compiled"),
    "the decoder, in place": (lambda model: compile_in_place(model, "model"), r"LlamaForCausalLM\.model was compiled"),
    "all, in place": (lambda model: compile_in_place(model, ""), "LlamaForCausalLM was compiled: prune the model first"),
    "a module": (lambda model: model.model.layers, "ModuleList is no model of transformers: want a causal language model"),
    "a name": (lambda model: "meta-llama/Llama-3.2-1B", "model='meta-llama/Llama-3.2-1B': want a causal language model"),
    "nothing": (lambda model: None, "model=None: want a causal language model"),
    "a list": (lambda model: [model], "want a causal language model"),
}


@pytest.mark.parametrize("which", WRAPPED)
@pytest.mark.parametrize("pruner", ["wanda", "magnitude", "depth"])
def test_prune(which: str, pruner: str) -> None:
    model = tiny.model()
    before = tiny.weights(model)
    wrap, message = WRAPPED[which]
    with pytest.raises(UnsupportedModelError, match=message) as error:
        prune(wrap(model), pruner=pruner, sparsity=0.5, calibration=tiny.token_ids())
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500
    assert {name.replace("._orig_mod", ""): tensor for name, tensor in tiny.weights(model).items()}.keys() == before.keys()
    assert all(tensor.equal(before[name.replace("._orig_mod", "")]) for name, tensor in tiny.weights(model).items())


@pytest.mark.parametrize("which", ["DataParallel", "torch.compile", "a block, in place"])
def test_pruned_hf(which: str) -> None:
    wrap, message = WRAPPED[which]
    with pytest.raises(UnsupportedModelError, match=message):
        PrunedHFLM(pretrained=wrap(tiny.model()), tokenizer=tiny.tokenizer(), pruner="wanda", sparsity=0.5)


@pytest.mark.parametrize("device", ["cdua", "cuda:x", "", 3.5])
def test_a_device_that_is_none(device: Any) -> None:
    with pytest.raises(BadOptionError, match=r"device=.*want a device such as cpu, cuda or cuda:1"):
        prune(tiny.model(), pruner="magnitude", sparsity=0.5, device=device)


@pytest.mark.parametrize(
    ("name", "options", "length"),
    [
        ("reformer", {}, 200), ("openai-gpt", {}, 129), ("roberta", {"is_decoder": True}, 128), ("mpt", {}, 129), ("gptj", {}, 129),
        ("whisper", {}, 449), ("xlm-roberta", {"is_decoder": True}, 128), ("gpt2", {}, 129), ("codegen", {}, 500), ("ctrl", {}, 129),
    ],
)  # fmt: skip
@pytest.mark.parametrize("pruner", ["wanda", "depth"])
def test_calibration_tokens_that_a_model_cannot_take(name: str, options: dict[str, Any], length: int, pruner: str) -> None:
    model = architectures.model(name, **options)
    ids = torch.randint(3, 120, (2, length), generator=torch.Generator().manual_seed(0))
    with pytest.raises(HarnessExtError, match=f"sequences of {length} tokens, the model takes at most") as error:
        prune(model, pruner=pruner, sparsity=0.5, calibration=ids)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "options", "longest"),
    [
        ("roberta", {"is_decoder": True}, 127), ("camembert", {"is_decoder": True}, 127), ("data2vec-text", {"is_decoder": True}, 127),
        ("xlm-roberta-xl", {"is_decoder": True}, 127), ("roberta-prelayernorm", {"is_decoder": True}, 127), ("mpt", {}, 128),
        ("opt", {}, 128), ("biogpt", {}, 128), ("bart", {}, 128), ("bert", {"is_decoder": True}, 128), ("openai-gpt", {}, 128),
        ("ctrl", {}, 128), ("whisper", {}, 448), ("xglm", {}, 128), ("gpt_neo", {}, 128), ("reformer", {}, 128),
    ],
)  # fmt: skip
def test_the_longest_sequence_that_a_model_takes(name: str, options: dict[str, Any], longest: int) -> None:
    model = architectures.model(name, **options)
    assert longest_of(model) == longest
    ids = torch.randint(3, 120, (1, longest), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits.isfinite().all()


@pytest.mark.parametrize("name", ["cpmant", "pegasus", "roc_bert", "openai-gpt", "roberta", "mpt", "xlnet", "whisper", "gpt2"])
def test_a_model_of_any_kind_writes_its_calibration_text(name: str) -> None:
    ids = SelfGenerated(samples=2, length=6).input_ids(architectures.model(name), None)
    assert ids.shape == (2, 6)


@pytest.mark.parametrize("name", ["xlstm", "xmod", "jamba", "bamba"])
def test_or_says_in_a_line_that_it_cannot(name: str) -> None:
    with pytest.raises(HarnessExtError, match=r"cannot write text.*give a file of text, calibration=FILE") as error:
        SelfGenerated(samples=2, length=6).input_ids(architectures.model(name), None)
    assert "\n" not in str(error.value)
