"""Whatever ``hf`` takes, ``pruned-hf`` takes: scores are those of ``hf`` on an equally pruned model, or of ``hf`` if nothing is pruned."""

from __future__ import annotations

import functools
import gc
import json
from pathlib import Path
from typing import Any

import gguf
import harness_run
import pytest
import tiny
import torch
import transformers
from lm_eval.models.huggingface import HFLM
from peft import IA3Config, LoraConfig, PromptTuningConfig, get_peft_model
from refusals import raises_line
from safetensors.torch import load_file

from harness_ext import BadOptionError, UnsupportedModelError, prune
from harness_ext.host.model import PrunedHFLM

CODE = """
from transformers import LlamaConfig, LlamaForCausalLM

class OwnConfig(LlamaConfig):
    model_type = "own-llama"

class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = output.logits * 2
        return output
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of every kind, and tasks."""
    folder = tmp_path_factory.mktemp("any-run")
    harness_run.write_tasks(folder / "tasks")
    tiny.checkpoint(folder / "dense")
    tiny.checkpoint(folder / "delta", seed=7)
    tiny.checkpoint(folder / "nested" / "inside")
    own_code(folder / "own")
    save_adapter(folder / "lora", LoraConfig(r=2, lora_alpha=6, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"))
    save_adapter(
        folder / "ia3", IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"], task_type="CAUSAL_LM")
    )
    save_adapter(folder / "prompt", PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"))
    write_gguf(folder / "gguf")
    return folder


def own_code(folder: Path) -> None:
    """A model type that transformers does not know, with its code beside the weights."""
    tiny.checkpoint(folder)
    (folder / "own.py").write_text(CODE)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own-llama", "architectures": ["OwnForCausalLM"]}
    config["auto_map"] = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"}
    (folder / "config.json").write_text(json.dumps(config))


def save_adapter(folder: Path, config: Any) -> None:
    model = get_peft_model(tiny.model(), config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5 + 0.2)
    model.save_pretrained(folder)


def write_gguf(folder: Path) -> None:
    """A Llama with matrices in float16, as llama.cpp has it."""
    folder.mkdir()
    tiny.tokenizer().save_pretrained(folder)
    model = tiny.model(hidden_size=32, intermediate_size=32, num_attention_heads=2, num_key_value_heads=2)
    writer = gguf.GGUFWriter(str(folder / "model.gguf"), "llama")
    writer.add_block_count(2)
    for add in (writer.add_context_length, writer.add_embedding_length, writer.add_feed_forward_length):
        add(32)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    words = sorted(tiny.tokenizer().get_vocab().items(), key=lambda item: item[1])
    writer.add_tokenizer_model("llama")
    writer.add_token_list([word for word, _ in words])
    writer.add_token_scores([0.0] * len(words))
    writer.add_token_types([1] * len(words))
    parts = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output", "model.layers": "blk"}
    parts |= {f"self_attn.{name}_proj": f"attn_{name}" for name in "qkv"} | {"self_attn.o_proj": "attn_output"}
    parts |= {f"mlp.{name}_proj": f"ffn_{name}" for name in ("gate", "up", "down")}
    parts |= {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    for own, tensor in model.state_dict().items():
        name = functools.reduce(lambda found, part: found.replace(*part), parts.items(), own)
        writer.add_tensor(name, tensor.numpy().astype("float16" if tensor.ndim > 1 else "float32"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


ARGUMENTS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "dtype": {"dtype": "bfloat16"},
    "softmax_dtype": {"dtype": "bfloat16", "softmax_dtype": "float32"},
    "mixed_precision_dtype": {"mixed_precision_dtype": "bfloat16"},
    "batch_size=auto": {"batch_size": "auto", "max_batch_size": 4},
    "max_length": {"max_length": 9},
    "add_bos_token": {"add_bos_token": True},
    "prefix_token_id": {"prefix_token_id": 5},
    "logits_cache": {"logits_cache": False},
    "parallelize": {"parallelize": True, "max_cpu_memory": "1GiB"},
    "device_map": {"device_map": "cpu"},
    "attn_implementation": {"attn_implementation": "eager"},
    "tokenizer": {"tokenizer": "{place}/delta"},
    "subfolder": {"pretrained": "{place}/nested", "subfolder": "inside"},
    "delta": {"delta": "{place}/delta"},
    "trust_remote_code": {"pretrained": "{place}/own", "trust_remote_code": True},
    "gguf_file": {"pretrained": "{place}/gguf", "gguf_file": "model.gguf", "tokenizer": "{place}/gguf"},
    "think_end_token": {"think_end_token": "c"},
}


def of_hf(place: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments of ``hf``, with the folders in place."""
    given = {"pretrained": "{place}/dense", "device": "cpu", "batch_size": 4} | arguments
    return {name: value.format(place=place) if isinstance(value, str) else value for name, value in given.items()}


@pytest.mark.parametrize("which", ARGUMENTS)
def test_scores_are_those_of_hf_dense_and_pruned(place: Path, which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc, "collect", lambda *_: 0)  # which the search for a batch size calls a dozen times
    arguments = of_hf(place, ARGUMENTS[which])
    dense = harness_run.outcome(place / "tasks", "hf", arguments)
    assert harness_run.outcome(place / "tasks", "pruned-hf", arguments | {"sparsity": 0}) == dense

    lm = HFLM(**arguments)
    prune(lm.model, tokenizer=lm.tokenizer, **harness_run.PRUNED, calibration_options={"samples": 3, "length": 8})
    ours = harness_run.outcome(place / "tasks", "pruned-hf", arguments | harness_run.PRUNED | harness_run.SMALL)
    assert ours == harness_run.outcome(place / "tasks", lm)
    assert ours["answers"] != dense["answers"]


CHAT = {
    "apply_chat_template": {"apply_chat_template": True},
    "a turn for each example": {"apply_chat_template": True, "fewshot_as_multiturn": True, "num_fewshot": 1},
    "all examples in a turn": {"apply_chat_template": True, "fewshot_as_multiturn": False, "num_fewshot": 1},
    "system_instruction": {"apply_chat_template": True, "system_instruction": "x y z"},
    "num_fewshot": {"num_fewshot": 2},
    "limit": {"limit": 2},
    "gen_kwargs": {"gen_kwargs": {"max_gen_toks": 2, "do_sample": True, "temperature": 0.7}},
}


@pytest.mark.parametrize("which", CHAT)
def test_how_prompts_are_made_is_as_with_hf(place: Path, which: str) -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = harness_run.CHAT_TEMPLATE
    model = tiny.model()
    prune(model, pruner="magnitude", sparsity=0.5)
    ours = PrunedHFLM(pretrained=tiny.model(), tokenizer=tokenizer, pruner="magnitude", sparsity=0.5, batch_size=4, share_prompts=False)
    theirs = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4)
    first, second = (harness_run.outcome(place / "tasks", lm, **CHAT[which]) for lm in (ours, theirs))
    assert first == second
    assert first["answers"] != harness_run.outcome(place / "tasks", theirs)["answers"]


class TestAdapters:
    @pytest.mark.parametrize("adapter", ["lora", "ia3", "prompt"])
    def test_a_dense_model_has_its_adapter_as_with_hf(self, place: Path, adapter: str) -> None:
        arguments = of_hf(place, {"peft": f"{place}/{adapter}"})
        dense = harness_run.outcome(place / "tasks", "hf", arguments)
        assert harness_run.outcome(place / "tasks", "pruned-hf", arguments) == dense
        assert dense != harness_run.outcome(place / "tasks", "hf", of_hf(place, {}))

    def test_what_is_pruned_is_the_weight_with_the_adapter_in_it(self, place: Path, tmp_path: Path) -> None:
        adapter = {**load_file(place / "lora" / "adapter_model.safetensors")}
        model = tiny.model()
        with torch.no_grad():
            for name, module in model.named_modules():
                if (key := f"base_model.model.{name}.lora_A.weight") in adapter:
                    module.weight += 6 / 2 * adapter[key.replace("lora_A", "lora_B")] @ adapter[key]
        model.save_pretrained(tmp_path)
        tiny.tokenizer().save_pretrained(tmp_path)
        given = harness_run.PRUNED | harness_run.SMALL
        ours = PrunedHFLM(**of_hf(place, {"peft": f"{place}/lora"}), **given)
        oracle = PrunedHFLM(**of_hf(place, {"pretrained": str(tmp_path)}), **given)
        assert ours.model.state_dict().keys() == oracle.model.state_dict().keys()
        for name, weight in ours.model.state_dict().items():
            torch.testing.assert_close(weight, oracle.model.state_dict()[name])
        assert ours.pruning_record["achieved_sparsity"] == 0.5

    def test_other_adapters_are_merged_as_well(self, place: Path) -> None:
        lm = PrunedHFLM(**of_hf(place, {"peft": f"{place}/ia3"}), **harness_run.PRUNED, **harness_run.SMALL)
        assert lm.model.state_dict().keys() == tiny.model().state_dict().keys()
        assert (lm.model.model.layers[1].mlp.down_proj.weight == 0).sum() == tiny.WIDTH * tiny.INNER / 2

    @pytest.mark.parametrize(
        ("adapter", "parts"),
        [("prompt", ["PROMPT_TUNING", "merged"]), ("dense", ["adapter_config"])],
    )
    def test_those_that_cannot_be_merged_are_refused_before_the_model_is_loaded(
        self, place: Path, monkeypatch: pytest.MonkeyPatch, adapter: str, parts: list[str]
    ) -> None:
        monkeypatch.setattr(HFLM, "_create_model", lambda *_, **__: pytest.fail("weights were loaded"))
        with raises_line(BadOptionError, f"peft='{place}/{adapter}'", *parts):
            PrunedHFLM(**of_hf(place, {"peft": f"{place}/{adapter}"}), sparsity=0.5)

    def test_a_model_in_memory_that_carries_one_is_refused_until_it_is_merged(self) -> None:
        model = get_peft_model(tiny.model(), LoraConfig(r=2, target_modules=["q_proj"]))
        before = tiny.weights(model)
        with raises_line(UnsupportedModelError, "q_proj", "model.merge_and_unload()"):
            prune(model, pruner="magnitude", sparsity=0.5)
        assert tiny.same(tiny.weights(model), before)
        assert prune(model.merge_and_unload(), pruner="magnitude", sparsity=0.5)["achieved_sparsity"] == 0.5


@pytest.fixture(scope="module")
def expected(place: Path) -> dict[str, Any]:
    model = tiny.model()
    prune(model, **harness_run.PRUNED, calibration_options={"samples": 3, "length": 8})
    return harness_run.outcome(place / "tasks", HFLM(pretrained=model, tokenizer=tiny.tokenizer(), batch_size=4))


class TestInPython:
    """Three ways to the same run."""

    def test_by_name_with_a_dictionary_of_arguments(self, place: Path, expected: dict[str, Any]) -> None:
        arguments = of_hf(place, {}) | harness_run.PRUNED | harness_run.SMALL
        assert harness_run.outcome(place / "tasks", "pruned-hf", arguments) == expected

    def test_by_name_with_a_text_of_arguments(self, place: Path, expected: dict[str, Any]) -> None:
        arguments = of_hf(place, {}) | harness_run.PRUNED | harness_run.SMALL
        text = ",".join(f"{name}={value}" for name, value in arguments.items())
        assert harness_run.outcome(place / "tasks", "pruned-hf", text) == expected

    def test_by_name_with_a_model_in_memory(self, place: Path, expected: dict[str, Any]) -> None:
        given = {"pretrained": tiny.model(), "tokenizer": tiny.tokenizer()} | harness_run.PRUNED | harness_run.SMALL
        assert harness_run.outcome(place / "tasks", "pruned-hf", given, batch_size=4) == expected

    def test_with_an_object(self, place: Path, expected: dict[str, Any]) -> None:
        lm = PrunedHFLM(pretrained=tiny.model(), tokenizer=tiny.tokenizer(), batch_size=4, **harness_run.PRUNED, **harness_run.SMALL)
        assert harness_run.outcome(place / "tasks", lm) == expected


VISION = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 8, "patch_size": 4}


class TestMultimodal:
    """The text decoder is pruned, and text is what ``hf`` asks for."""

    def llava(self) -> Any:
        vision, text = transformers.CLIPVisionConfig(**VISION), tiny.model().config
        config = transformers.LlavaConfig(vision_config=vision, text_config=text, image_token_index=39)
        return tiny.randomise(transformers.LlavaForConditionalGeneration(config)).eval()

    def test_a_decoder_with_a_vision_tower_of_the_same_depth_is_pruned_as_it_is_without(self, place: Path) -> None:
        whole = self.llava()
        text = tiny.model()
        text.model.load_state_dict(whole.model.language_model.state_dict())
        text.lm_head.load_state_dict(whole.lm_head.state_dict())
        tower = tiny.weights(whole.model.vision_tower)
        given = {"tokenizer": tiny.tokenizer(), "batch_size": 4} | harness_run.PRUNED | {"calibration": tiny.token_ids()}
        ours, alone = PrunedHFLM(pretrained=whole, **given), PrunedHFLM(pretrained=text, **given)
        assert tiny.same(whole.model.language_model.state_dict(), text.model.state_dict())
        assert tiny.same(tiny.weights(whole.model.vision_tower), tower)
        assert ours.pruning_record["achieved_sparsity"] == 0.5
        assert harness_run.outcome(place / "tasks", ours) == harness_run.outcome(place / "tasks", alone)

    def test_one_that_hf_loads_is_loaded_and_pruned(self, place: Path, tmp_path: Path) -> None:
        text = tiny.model().config.to_dict() | {"head_dim": 4, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}
        config = transformers.Gemma3Config(text_config=text, vision_config=VISION, mm_tokens_per_image=4)
        tiny.randomise(transformers.Gemma3ForConditionalGeneration(config)).save_pretrained(tmp_path)
        tiny.tokenizer().save_pretrained(tmp_path)
        arguments = of_hf(place, {"pretrained": str(tmp_path)})
        lm = HFLM(**arguments)
        prune(lm.model, tokenizer=lm.tokenizer, **harness_run.PRUNED, calibration_options={"samples": 3, "length": 8})
        ours = harness_run.outcome(place / "tasks", "pruned-hf", arguments | harness_run.PRUNED | harness_run.SMALL)
        assert ours == harness_run.outcome(place / "tasks", lm)
