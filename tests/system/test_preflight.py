"""What cannot be pruned is refused before a weight is loaded: of the models here, there are none."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
import transformers
from refusals import raises_line
from torch._subclasses import FakeTensorMode
from typer.testing import CliRunner

from harness_ext import BadOptionError, HarnessExtError, UnsupportedModelError, find_blocks
from harness_ext.commands.cli import app
from harness_ext.engine.coverage import check_coverage
from harness_ext.host.chat_template import check_chat_template
from harness_ext.host.model import PrunedHFLM
from harness_ext.sweep.fields import Sweep
from harness_ext.sweep.prepared import Checked

LLAMA = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 16,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "vocab_size": 40,
}
TEXT = tiny.model().config.to_dict()
GROUPS = {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4}}}

CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "T5": (transformers.T5Config(num_layers=2).to_dict(), ["t5", "encoder"]),
    "BART": (transformers.BartConfig().to_dict(), ["bart", "encoder"]),
    "LLaVA": (transformers.LlavaConfig(text_config=TEXT).to_dict(), ["pretrained=model"]),
    "Qwen2-VL": (transformers.Qwen2VLConfig().to_dict(), ["pretrained=model"]),
    "CLIP": (transformers.CLIPConfig().to_dict(), ["clip"]),
    "ViT": (transformers.ViTConfig().to_dict(), ["vit"]),
    "XLNet": (transformers.XLNetConfig(n_layer=2, d_model=16, n_head=4, d_inner=24).to_dict(), ["rel_attn.q (16, 4, 4)", "linear"]),
    "bitsandbytes": (
        LLAMA | {"quantization_config": {"load_in_4bit": True, "quant_method": "bitsandbytes"}},
        ["quantised", "bitsandbytes"],
    ),
    "bitsandbytes of old": (LLAMA | {"quantization_config": {"load_in_8bit": True}}, ["quantised"]),
    "GPTQ": (LLAMA | {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 8}}, ["quantised", "gptq"]),
    "AWQ": (LLAMA | {"quantization_config": {"quant_method": "awq", "bits": 4}}, ["quantised", "awq"]),
    "torchao": (LLAMA | {"quantization_config": {"quant_method": "torchao", "quant_type": {}}}, ["quantised", "torchao"]),
    "float8": (LLAMA | {"quantization_config": {"quant_method": "fp8"}}, ["quantised", "fp8"]),
    "compressed-tensors": (
        LLAMA | {"quantization_config": {"quant_method": "compressed-tensors", "config_groups": GROUPS}},
        ["quantised", "compressed-tensors"],
    ),
}


def folder_of(tmp_path: Path, config: dict[str, Any]) -> str:
    (tmp_path / "config.json").write_text(json.dumps(config))
    tiny.tokenizer().save_pretrained(tmp_path)
    return str(tmp_path)


@pytest.mark.parametrize("which", CONFIGS)
def test_what_the_configuration_tells_is_one_line_in_a_run_and_in_the_prune_command(tmp_path: Path, which: str) -> None:
    config, parts = CONFIGS[which]
    folder = folder_of(tmp_path, config)
    with raises_line(UnsupportedModelError, *parts) as error:
        PrunedHFLM(pretrained=folder, sparsity=0.5, device="cpu")
    done = CliRunner().invoke(app, ["prune", "--pretrained", folder, "--sparsity", "0.5", "--out", str(tmp_path / "out")])
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert line == f"UnsupportedModelError: {error.value}".replace(f" {folder}:", f" --pretrained {folder}:")


@pytest.mark.parametrize(
    "quantised",
    [{"quant_method": "fp8", "dequantize": True}, {"quant_method": "compressed-tensors", "format": "dense", "config_groups": {}}],
    ids=["turned into plain weights", "sparse alone"],
)
def test_weights_that_are_plain_once_loaded_are_not_refused_for_their_files(tmp_path: Path, quantised: dict[str, Any]) -> None:
    folder = folder_of(tmp_path, LLAMA | {"quantization_config": quantised})
    with pytest.raises((BadOptionError, ImportError), match=r"model\.safetensors|compressed"):  # no weights, and no library for them
        PrunedHFLM(pretrained=folder, sparsity=0.5, device="cpu")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({"autogptq": True}, ["autogptq=True"]),
        ({"autogptq": "model.safetensors"}, ["autogptq='model.safetensors'"]),
        ({"gptqmodel": True}, ["gptqmodel=True"]),
        ({"load_in_4bit": True}, ["load_in_4bit=True"]),
        ({"load_in_8bit": True}, ["load_in_8bit=True"]),
        ({"backend": "seq2seq"}, ["backend='seq2seq'"]),
        ({"tp_plan": "auto"}, ["tp_plan='auto'"]),
        ({"modules": "atention"}, ["modules='atention'"]),
    ],
    ids=str,
)
def test_so_are_arguments_of_hf_that_do_not_go_with_pruning(tmp_path: Path, arguments: dict[str, Any], parts: list[str]) -> None:
    with raises_line(BadOptionError, *parts):
        PrunedHFLM(pretrained=folder_of(tmp_path, LLAMA), sparsity=0.5, device="cpu", **arguments)


@pytest.mark.parametrize("build", [lambda: transformers.T5ForConditionalGeneration(
    transformers.T5Config(d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=4, vocab_size=40, decoder_start_token_id=0)
), lambda: transformers.MambaForCausalLM(transformers.MambaConfig(hidden_size=16, num_hidden_layers=2, vocab_size=40, state_size=4))],
    ids=["T5", "Mamba"])  # fmt: skip
def test_a_dense_model_of_any_kind_is_evaluated_as_with_hf(tmp_path: Path, build: Any) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    tiny.randomise(build()).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    asked = [Instance(request_type="loglikelihood", doc={}, arguments=("a b", choice), idx=0) for choice in (" c", " 1 2")]
    ours, theirs = (cls(pretrained=str(tmp_path), device="cpu").loglikelihood(asked, disable_tqdm=True) for cls in (PrunedHFLM, HFLM))
    assert ours == theirs


def test_decoder_layers_on_two_devices_are_refused() -> None:
    model = tiny.model()
    with FakeTensorMode():
        model.model.layers[1].mlp.down_proj.weight = torch.nn.Parameter(torch.empty(tiny.WIDTH, tiny.INNER, device="cuda:1"))
    with raises_line(HarnessExtError, "cpu and cuda:1"):
        check_coverage(model, find_blocks(model))


@pytest.mark.parametrize("sparsity", [0, 0.5])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"foo": 1}, ["no argument 'foo'"]),
        ({"add_bos_tokn": True}, ["'add_bos_tokn'", "Did you mean 'add_bos_token'"]),
        ({"shareprompts": False}, ["'shareprompts'", "Did you mean 'share_prompts'"]),
        ({"max_length": "abc"}, ["max_length='abc'", "at least 1"]),
        ({"max_length": 0}, ["max_length=0", "at least 1"]),
        ({"prefix_token_id": 1.5}, ["prefix_token_id=1.5", "at least 0"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_an_argument_that_neither_hf_nor_the_model_takes_is_named(arguments: dict[str, Any], words: list[str], sparsity: float) -> None:
    with raises_line(BadOptionError, *words):
        PrunedHFLM("lab-xs", sparsity=sparsity, device="cpu", **arguments)


def test_a_chat_template_is_asked_for_before_the_first_prompt() -> None:
    lm = PrunedHFLM("lab-xs", device="cpu")
    with raises_line(BadOptionError, "--apply_chat_template", "no chat template"):
        lm.chat_template(True)
    assert lm.chat_template(False) is None


@pytest.mark.parametrize(
    ("template", "asked", "words"),
    [
        (None, True, ["no chat template"]),
        ({"tool_use": "x", "rag": "y"}, True, ["none is called default", "rag, tool_use"]),
        ({"tool_use": "x", "rag": "y"}, "rag", ["none is called default"]),
        ({"default": "x", "rag": "y"}, "rag", ["lm-eval applies the one called default"]),
        ({"default": "x", "tool_use": "y"}, "tool-use", ["'tool-use'", "Did you mean 'tool_use'"]),
    ],
)
def test_a_sweep_asks_for_the_chat_template_before_it_prunes(template: Any, asked: bool | str, words: list[str], tmp_path: Path) -> None:
    model = tiny.checkpoint(tmp_path / "model")
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(model)
    sweep = Sweep(pretrained=(model,), sparsity=("0.5",), pruner=("magnitude",), tasks=("icl_linear",), apply_chat_template=asked)
    with raises_line(BadOptionError, "--apply_chat_template", "model", *words):
        Checked(sweep)


@pytest.mark.parametrize(
    ("template", "asked"), [("x", True), ("x", "any"), ({"default": "x"}, True), ({"default": "x", "rag": "y"}, "default"), (None, False)]
)
def test_a_chat_template_that_the_tokenizer_has_is_taken(template: Any, asked: bool | str) -> None:
    check_chat_template(SimpleNamespace(chat_template=template), asked)
    check_chat_template(None, asked)
