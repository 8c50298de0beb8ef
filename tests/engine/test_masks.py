"""Masks of one bit a weight, and the pruner that applies them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from harness_ext_pruners.stored import Stored
from pairwise import all_pairs
from refusals import raises_line
from safetensors.torch import load_file, save_file

from harness_ext import BadOptionError, find_blocks, prune
from harness_ext.plugins import Plugins
from harness_ext.weights.masks import load_masks, save_masks

MASK_ONLY = sorted({"magnitude", "wanda", "ria", "random", "dsnot"} & set(Plugins().pruners.items))


def pruned(name: str = "llama", dtype: torch.dtype = torch.float32, **options: Any) -> tuple[Any, dict[str, Any]]:
    model = tiny.model(name, dtype=dtype)
    return model, prune(model, **({"pruner": "magnitude", "sparsity": 0.5, "calibration": tiny.token_ids()} | options))


def stored(folder: Path, name: str = "llama", **options: Any) -> tuple[Any, dict[str, Any]]:
    model, record = pruned(name, **options)
    save_masks(model, record, folder)
    return model, record


def layers(model: Any) -> dict[str, torch.Tensor]:
    return {layer.name: layer.weight for block in find_blocks(model) for layer in block.layers}


class TestFile:
    @pytest.mark.parametrize("name", ["llama", "gpt2"])
    def test_has_one_bit_a_weight(self, tmp_path: Path, name: str) -> None:
        model, _ = stored(tmp_path / "out", name)
        for layer, packed in load_file(tmp_path / "out" / "masks.safetensors").items():
            bits = "".join(f"{byte:08b}" for byte in packed.tolist())
            zeros = layers(model)[layer].flatten().tolist()
            assert bits.rstrip("0") == "".join("1" if weight == 0 else "0" for weight in zeros).rstrip("0")
            assert len(packed) == (len(zeros) + 7) // 8

    @pytest.mark.parametrize("name", ["llama", "gpt2"])
    def test_is_read_back_as_it_was(self, tmp_path: Path, name: str) -> None:
        model, _ = stored(tmp_path / "out", name, sparsity=0.3)
        masks = load_masks(tmp_path / "out")
        assert masks.keys() == layers(model).keys()
        assert all(mask.equal(layers(model)[layer] == 0) for layer, mask in masks.items())
        assert load_masks(tmp_path / "out" / "masks.safetensors").keys() == masks.keys()

    def test_takes_sizes_that_are_no_multiple_of_eight(self, tmp_path: Path) -> None:
        model = tiny.model(hidden_size=12, intermediate_size=21)
        save_masks(model, prune(model, pruner="magnitude", sparsity=0.5), tmp_path / "out")
        assert all(mask.equal(layers(model)[layer] == 0) for layer, mask in load_masks(tmp_path / "out").items())

    def test_holds_the_layers_that_were_pruned(self, tmp_path: Path) -> None:
        _, record = stored(tmp_path / "out", modules="attention")
        assert load_masks(tmp_path / "out").keys() == record["layers"].keys()
        assert json.loads((tmp_path / "out" / "pruning.json").read_text()) == record

    def test_says_how_it_is_used(self, tmp_path: Path) -> None:
        stored(tmp_path / "out", modules="attention")
        card = (tmp_path / "out" / "README.md").read_text()
        assert "pruner=stored,pruner.path=out,sparsity=0.23" in card  # 8 of 17 parts are attention
        assert "from_pretrained" not in card

    def test_says_which_sparsity_it_holds_where_rows_round_it(self, tmp_path: Path) -> None:
        stored(tmp_path / "out", pruner="wanda", sparsity=0.29)  # 4 of 16, and 6 of 24
        assert re.findall(r"pruner\.path=out,sparsity=([\d.]+)", (tmp_path / "out" / "README.md").read_text()) == ["0.25"]

    def test_that_is_missing_is_named(self, tmp_path: Path) -> None:
        with raises_line(BadOptionError, str(tmp_path), "masks"):
            load_masks(tmp_path)

    def test_that_is_something_else_is_refused(self, tmp_path: Path) -> None:
        tiny.checkpoint(tmp_path)
        with raises_line(BadOptionError, "model.safetensors", "masks"):
            load_masks(tmp_path / "model.safetensors")
        with raises_line(BadOptionError, "config.json", "masks"):
            load_masks(tmp_path / "config.json")

    @pytest.mark.parametrize("size", [3, 5])
    def test_of_another_size_is_refused(self, tmp_path: Path, size: int) -> None:
        metadata = {"format": "harness-ext masks 1", "shapes": json.dumps({"layer": [4, 8]})}
        save_file({"layer": torch.zeros(size, dtype=torch.uint8)}, tmp_path / "masks.safetensors", metadata)
        with raises_line(BadOptionError, "layer", str(size), "32"):
            load_masks(tmp_path)


class TestStored:
    @all_pairs(pruner=MASK_ONLY, name=["llama", "gpt2"], sparsity=[0.25, "2:4"])
    def test_gives_the_pruned_model_bit_for_bit(self, tmp_path: Path, pruner: str, name: str, sparsity: Any) -> None:
        model, _ = stored(tmp_path / "out", name, pruner=pruner, sparsity=sparsity)
        again = tiny.model(name)
        record = prune(again, pruner=Stored(path=str(tmp_path / "out")), sparsity=sparsity)
        assert tiny.same(tiny.weights(again), tiny.weights(model))
        assert record["achieved_sparsity"] == (0.25 if sparsity == 0.25 else 0.5)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    def test_gives_it_in_half_precision(self, tmp_path: Path, dtype: torch.dtype) -> None:
        model, _ = stored(tmp_path / "out", dtype=dtype, pruner="wanda")
        again = tiny.model(dtype=dtype)
        prune(again, pruner=Stored(path=str(tmp_path / "out")), sparsity=0.5)
        assert tiny.same(tiny.weights(again), tiny.weights(model))

    def test_of_sparsegpt_is_the_mask_alone(self, tmp_path: Path) -> None:
        model, _ = stored(tmp_path / "out", pruner="sparsegpt")
        again, dense = tiny.model(), layers(tiny.model())
        prune(again, pruner=Stored(path=str(tmp_path / "out")), sparsity=0.5)
        for name, weight in layers(again).items():
            assert weight.equal(dense[name].masked_fill(layers(model)[name] == 0, 0))

    @pytest.mark.parametrize(("modules", "sparsity"), [("attention", 0.5), ("*.0.*", 0.77)])
    def test_says_which_sparsity_to_ask_for(self, tmp_path: Path, modules: str, sparsity: float) -> None:
        model, record = stored(tmp_path / "out", modules=modules, sparsity=sparsity)
        with raises_line(BadOptionError, "sparsity=0.9") as caught:
            prune(tiny.model(), pruner=Stored(path=str(tmp_path / "out")), sparsity=0.9)
        again = tiny.model()
        found = prune(again, pruner=Stored(path=str(tmp_path / "out")), sparsity=str(caught.value).split("sparsity=")[-1])
        assert tiny.same(tiny.weights(again), tiny.weights(model))
        assert found["achieved_sparsity_of_model"] == record["achieved_sparsity_of_model"]

    def test_a_wrong_sparsity_changes_no_weight(self, tmp_path: Path) -> None:
        stored(tmp_path / "out")
        model = tiny.model()
        with raises_line(BadOptionError, "sparsity=0.6", "sparsity=0.5"):
            prune(model, pruner=Stored(path=str(tmp_path / "out")), sparsity=0.6)
        assert tiny.same(tiny.weights(model), tiny.weights(tiny.model()))

    def test_a_pattern_that_the_masks_do_not_keep_is_refused(self, tmp_path: Path) -> None:
        stored(tmp_path / "out")
        with raises_line(BadOptionError, "sparsity=2:4", "sparsity=0.5"):
            prune(tiny.model(), pruner=Stored(path=str(tmp_path / "out")), sparsity="2:4")

    def test_the_ratio_of_a_pattern_may_be_asked_for(self, tmp_path: Path) -> None:
        model, _ = stored(tmp_path / "out", sparsity="2:4")
        again = tiny.model()
        prune(again, pruner=Stored(path=str(tmp_path / "out")), sparsity=0.5)
        assert tiny.same(tiny.weights(again), tiny.weights(model))

    @pytest.mark.parametrize(
        ("other", "parts"),
        [
            ({"layers": 1}, ["model.layers.1.self_attn.q_proj", "model.layers.0"]),
            ({"intermediate_size": 32}, ["model.layers.0.mlp.gate_proj", "(24, 16)", "(32, 16)"]),
        ],
    )
    def test_the_masks_of_another_model_are_refused(self, tmp_path: Path, other: dict[str, Any], parts: list[str]) -> None:
        stored(tmp_path / "out")
        with raises_line(BadOptionError, "pruner.path=", *parts):
            prune(tiny.model(**other), pruner=Stored(path=str(tmp_path / "out")), sparsity=0.5)

    def test_wants_a_path_that_holds_masks_before_there_is_a_model(self, tmp_path: Path) -> None:
        with raises_line(BadOptionError, "pruner=stored", "pruner.path="):
            Stored()
        with raises_line(BadOptionError, str(tmp_path), "masks"):
            Stored(path=str(tmp_path))
