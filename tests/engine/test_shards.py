"""BlockCheckpoints that are larger than memory: read, held, pruned and written one decoder block at a time."""

from __future__ import annotations

import json
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from refusals import raises_line
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from harness_ext import UnsupportedModelError, find_blocks, prune
from harness_ext.engine.placement import Placement
from harness_ext.engine.plan import make_plan
from harness_ext.engine.run import apply
from harness_ext.plugins import Plugins
from harness_ext.weights import weight_files as module
from harness_ext.weights.shards import Shards
from harness_ext.weights.weight_files import INDEX, SINGLE


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def source(tmp_path: Path, name: str = "llama", *, size: str | None = None, **options: Any) -> tuple[Path, Any]:
    """A checkpoint folder, of shards of at most ``size`` if that is given, and its model."""
    model = tiny.model(name, **options)
    folder = tmp_path / "in"
    model.save_pretrained(folder, **({"max_shard_size": size} if size else {}))
    return folder, AutoModelForCausalLM.from_pretrained(folder).eval()


def rewrite(folder: Path, change: Any) -> None:
    """Changes the dictionary of tensors in a single file."""
    tensors = load_file(folder / SINGLE)
    change(tensors)
    save_file(tensors, folder / SINGLE, {"format": "pt"})


def in_memory(block: Any) -> bool:
    return not any(parameter.is_meta for parameter in block.module.parameters())


def reloaded(folder: Path) -> dict[str, torch.Tensor]:
    return tiny.weights(AutoModelForCausalLM.from_pretrained(folder))


class TestOpen:
    @pytest.mark.parametrize(("name", "size"), [*((name, None) for name in tiny.ARCHITECTURES), ("llama-gqa-tied", "8KB"), ("gpt2", "8KB")])
    def test_holds_what_is_outside_the_blocks(self, tmp_path: Path, out: Path, name: str, size: str | None) -> None:
        folder, whole = source(tmp_path, name, size=size)
        assert (folder / INDEX).is_file() == (size is not None)
        with Shards.open(folder, out) as shards:
            assert not any(in_memory(block) for block in find_blocks(shards.model))
            inside = tuple(f"{block.name}." for block in find_blocks(shards.model))
            expected = tiny.weights(whole)
            for found, tensor in [*shards.model.named_parameters(remove_duplicate=False), *shards.model.named_buffers()]:
                if not found.startswith(inside):
                    assert tensor.equal(expected.get(found, dict(whole.named_buffers()).get(found)))
            assert shards.digest() == Placement(whole).digest()

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    def test_takes_the_dtype_of_the_files(self, tmp_path: Path, out: Path, dtype: torch.dtype) -> None:
        folder, whole = source(tmp_path, dtype=dtype)
        with Shards.open(folder, out) as shards:
            assert {parameter.dtype for parameter in shards.model.parameters()} == {dtype}
            assert shards.digest() == Placement(whole).digest()

    def test_or_another(self, tmp_path: Path, out: Path) -> None:
        folder, whole = source(tmp_path)
        with Shards.open(folder, out, dtype=torch.bfloat16) as shards:
            assert shards.digest() == Placement(whole.to(torch.bfloat16)).digest()
            shards.finish()
        assert AutoModelForCausalLM.from_pretrained(out).dtype == torch.bfloat16

    @pytest.mark.parametrize("name", tiny.ARCHITECTURES)
    def test_takes_files_without_the_prefix_of_the_model(self, tmp_path: Path, out: Path, name: str) -> None:
        folder, whole = source(tmp_path, name)
        prefix = f"{whole.base_model_prefix}."
        rewrite(folder, lambda tensors: [tensors.update({stored.removeprefix(prefix): tensors.pop(stored)}) for stored in list(tensors)])
        with Shards.open(folder, out) as shards:
            assert shards.digest() == Placement(whole).digest()
            shards.finish()
        assert {stored for file in out.glob("*.safetensors") for stored in load_file(file)} == set(load_file(folder / SINGLE))

    def test_takes_files_with_a_prefix_that_the_model_has_not(self, tmp_path: Path, out: Path) -> None:
        folder, whole = source(tmp_path)
        rewrite(folder, lambda tensors: tensors.update({"model.lm_head.weight": tensors.pop("lm_head.weight")}))
        with Shards.open(folder, out) as shards:
            assert shards.digest() == Placement(whole).digest()

    def test_takes_tied_weights_that_are_stored_twice(self, tmp_path: Path, out: Path) -> None:
        folder, whole = source(tmp_path, "llama-gqa-tied")
        rewrite(folder, lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}))
        with Shards.open(folder, out) as shards:
            assert shards.digest() == Placement(whole).digest()
        rewrite(folder, lambda tensors: tensors["lm_head.weight"].mul_(2))
        with raises_line(UnsupportedModelError, "lm_head.weight", "model.embed_tokens.weight", "ties"):
            Shards.open(folder, out)

    def test_ignores_buffers_that_older_versions_stored(self, tmp_path: Path, out: Path) -> None:
        folder, whole = source(tmp_path)
        rewrite(folder, lambda tensors: tensors.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2)}))
        with Shards.open(folder, out) as shards:
            assert shards.digest() == Placement(whole).digest()

    @pytest.mark.parametrize("extra", ["extra", "model.layers.0.extra.weight", "model.layers.9.mlp.up_proj.weight"])
    def test_leaves_out_what_the_model_has_not_as_from_pretrained_does(
        self, tmp_path: Path, out: Path, extra: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        folder, whole = source(tmp_path)
        rewrite(folder, lambda tensors: tensors.update({extra: torch.ones(2, 2)}))
        with Shards.open(folder, out) as shards:
            assert shards.digest() == Placement(whole).digest() == Placement(AutoModelForCausalLM.from_pretrained(folder)).digest()
            shards.finish()
        (warning,) = [record for record in caplog.records if record.name.startswith("harness_ext")]
        assert extra in warning.getMessage()
        assert str(folder) in warning.getMessage()
        assert not any(extra in load_file(file) for file in out.glob("*.safetensors"))
        assert reloaded(out).keys() == tiny.weights(whole).keys()

    @pytest.mark.parametrize(
        ("change", "parts"),
        [
            (lambda t: t.pop("model.layers.1.mlp.up_proj.weight"), ["model.layers.1.mlp.up_proj.weight", "LlamaForCausalLM"]),
            (lambda t: t.update({"model.norm.weight": torch.ones(3)}), ["model.norm.weight", "(3,)", "(16,)"]),
            (lambda t: t.clear(), ["lm_head.weight", "18 others"]),
        ],
    )
    def test_refuses_files_that_do_not_fit(self, tmp_path: Path, out: Path, change: Any, parts: list[str]) -> None:
        folder, _ = source(tmp_path)
        rewrite(folder, change)
        with raises_line(UnsupportedModelError, str(folder), *parts):
            Shards.open(folder, out)

    def test_refuses_folders_without_safetensors(self, tmp_path: Path, out: Path) -> None:
        folder, _ = source(tmp_path)
        (folder / SINGLE).unlink()
        with raises_line(UnsupportedModelError, str(folder), SINGLE, INDEX):
            Shards.open(folder, out)

    def test_refuses_an_index_of_files_that_are_not_there(self, tmp_path: Path, out: Path) -> None:
        folder, _ = source(tmp_path, size="8KB")
        missing = sorted(folder.glob("model-*"))[1]
        missing.unlink()
        with raises_line(UnsupportedModelError, missing.name, INDEX):
            Shards.open(folder, out)

    @pytest.mark.parametrize("bytes_left", [0, 4, 100, 20_000])
    def test_refuses_files_that_are_cut_off(self, tmp_path: Path, out: Path, bytes_left: int) -> None:
        folder, _ = source(tmp_path)
        (folder / SINGLE).write_bytes((folder / SINGLE).read_bytes()[:bytes_left])
        with raises_line(UnsupportedModelError, f"{folder / SINGLE}: "):
            Shards.open(folder, out)


class TestHolding:
    @pytest.fixture
    def opened(self, tmp_path: Path, out: Path) -> Iterator[Shards]:
        with Shards.open(source(tmp_path, layers=8)[0], out) as shards:
            yield shards

    def test_brings_one_block_and_takes_it_away(self, opened: Shards, tmp_path: Path) -> None:
        expected = reloaded(tmp_path / "in")
        blocks = find_blocks(opened.model)
        for block in blocks:
            with opened.loaded(block, write=False):
                assert [other.name for other in blocks if in_memory(other)] == [block.name]
                assert all(layer.weight.equal(expected[f"{layer.name}.weight"]) for layer in block.layers)
            assert not any(map(in_memory, blocks))

    def test_keeps_what_was_written(self, opened: Shards) -> None:
        blocks = find_blocks(opened.model)
        before = opened.digest()
        with opened.loaded(blocks[2], write=True):
            for layer in blocks[2].layers:
                layer.write(layer.weight * 2)
            written = blocks[2].layers[0].weight.clone()
            assert dict(opened.tensors())[f"{blocks[2].layers[0].name}.weight"].equal(written)
        for _ in range(2):
            with opened.loaded(blocks[2], write=False):
                assert blocks[2].layers[0].weight.equal(written)
        assert dict(opened.tensors())[f"{blocks[2].layers[0].name}.weight"].equal(written)
        assert opened.digest() != before

    def test_and_nothing_else(self, opened: Shards) -> None:
        (block, *_) = find_blocks(opened.model)
        before = opened.digest()
        with opened.loaded(block, write=False):
            block.layers[0].write(block.layers[0].weight * 2)
        with pytest.raises(KeyError), opened.loaded(block, write=True):
            {}[block.layers[0].write(block.layers[0].weight * 2)]
        assert opened.digest() == before
        assert not in_memory(block)

    def test_within_itself_is_the_same_block(self, opened: Shards) -> None:
        (block, *_) = find_blocks(opened.model)
        with opened.loaded(block, write=False):
            with opened.loaded(block, write=True):
                block.layers[0].write(torch.zeros_like(block.layers[0].weight))
            assert not block.layers[0].weight.any()
        with opened.loaded(block, write=False):
            assert not block.layers[0].weight.any()

    def test_has_at_most_two_blocks_in_memory(self, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Counts the bytes of all tensors of blocks that were read and are still alive, whoever holds them."""
        alive: dict[int, int] = {}
        most = [0]
        lock = threading.Lock()
        read = module.read

        def spy(*arguments: Any) -> dict[str, torch.Tensor]:
            tensors = read(*arguments)
            with lock:
                for name, tensor in tensors.items():
                    if ".layers." in name:
                        number = len(keys)
                        keys.append(number)
                        alive[number] = tensor.nbytes
                        weakref.finalize(tensor.untyped_storage(), alive.pop, number)
                most[0] = max(most[0], sum(alive.values()))
            return tensors

        keys: list[int] = []
        folder, whole = source(tmp_path, layers=8)
        monkeypatch.setattr(module, "read", spy)
        with Shards.open(folder, out) as shards:
            blocks = find_blocks(shards.model)
            for _ in range(2):
                for block in blocks:
                    for write in (True, False):
                        with shards.loaded(block, write=write):
                            pass
            shards.finish()
        one = sum(parameter.nbytes for parameter in find_blocks(whole)[0].module.parameters())
        assert not alive
        assert one < most[0] <= 2 * one

    def test_reads_the_next_block_meanwhile(self, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        threads: dict[str, set[str]] = {}
        ahead = threading.Event()
        read = module.read

        def spy(files: Any, names: Any, dtype: Any) -> dict[str, torch.Tensor]:
            for name in names:
                threads.setdefault(name.split(".mlp")[0], set()).add(threading.current_thread().name)
            result = read(files, names, dtype)
            if threading.current_thread() is not threading.main_thread():
                ahead.set()
            return result

        monkeypatch.setattr(module, "read", spy)
        with Shards.open(source(tmp_path, layers=3)[0], out) as shards:
            for block in find_blocks(shards.model):
                ahead.clear()
                with shards.loaded(block, write=False):
                    assert block.name.endswith(".2") or ahead.wait(10)
        assert threads["model.layers.0"] == {threading.main_thread().name}
        assert all(name.startswith("next block") for number in (1, 2) for name in threads[f"model.layers.{number}"])

    def test_an_error_of_the_thread_is_raised_where_the_block_is_wanted(self, tmp_path: Path, out: Path) -> None:
        folder, _ = source(tmp_path, size="8KB", layers=3)
        with Shards.open(folder, out) as shards:
            first, second, _ = find_blocks(shards.model)
            names = json.loads((folder / INDEX).read_text())["weight_map"]
            (folder / names["model.layers.1.mlp.up_proj.weight"]).write_bytes(b"")
            with shards.loaded(first, write=False):
                pass
            with raises_line(UnsupportedModelError, "model-"), shards.loaded(second, write=False):
                pass
            assert not in_memory(second)


class TestFinish:
    @pytest.mark.parametrize("name", tiny.ARCHITECTURES)
    def test_of_what_was_not_touched_is_the_same_checkpoint(self, tmp_path: Path, out: Path, name: str) -> None:
        folder, whole = source(tmp_path, name)
        with Shards.open(folder, out) as shards:
            shards.finish()
        assert tiny.same(reloaded(out), tiny.weights(whole))
        stored = load_file(folder / SINGLE)
        index = json.loads((out / INDEX).read_text())
        assert index["weight_map"].keys() == stored.keys()
        assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in stored.values())
        assert sorted(path.name for path in out.glob("*.safetensors")) == sorted(set(index["weight_map"].values()))
        assert not list(out.glob("*.tmp"))

    def test_keeps_the_generation_settings(self, tmp_path: Path, out: Path) -> None:
        model = tiny.model()
        model.save_pretrained(tmp_path / "in")
        settings = tmp_path / "in" / "generation_config.json"
        settings.write_text(json.dumps(json.loads(settings.read_text()) | {"max_new_tokens": 7, "temperature": 0.5}))
        with Shards.open(tmp_path / "in", out) as shards:
            shards.finish()
        found = AutoModelForCausalLM.from_pretrained(out).generation_config
        assert (found.max_new_tokens, found.temperature) == (7, 0.5)

    def test_writes_one_file_for_each_block_while_it_goes(self, tmp_path: Path, out: Path) -> None:
        with Shards.open(source(tmp_path, layers=3)[0], out) as shards:
            for number, block in enumerate(find_blocks(shards.model)):
                with shards.loaded(block, write=True):
                    pass
                assert len(list(out.iterdir())) == number + 1
                assert {name.split(".mlp")[0].split(".self")[0] for name in load_file(max(out.iterdir()))} >= {block.name}


class TestPruning:
    @pytest.mark.parametrize(
        ("name", "pruner"), [*((name, "sparsegpt") for name in tiny.ARCHITECTURES), ("gpt2", "magnitude"), ("opt", "wanda")]
    )
    def test_is_bit_for_bit_what_it_is_in_memory(self, tmp_path: Path, out: Path, name: str, pruner: str) -> None:
        folder, whole = source(tmp_path, name, layers=3)
        expected = prune(whole, pruner=pruner, sparsity=0.5, calibration=tiny.token_ids())
        plan = make_plan(Plugins(), pruner=pruner, sparsity=0.5, calibration=tiny.token_ids())
        with Shards.open(folder, out) as shards:
            record = apply(plan, shards.model, None, placement=shards)
            shards.finish()
        assert tiny.same(reloaded(out), tiny.weights(whole))
        assert record["fingerprint"] == expected["fingerprint"]
        assert record["achieved_sparsity_of_model"] == expected["achieved_sparsity_of_model"]

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    def test_also_in_half_precision_and_in_some_layers(self, tmp_path: Path, out: Path, dtype: torch.dtype) -> None:
        folder, whole = source(tmp_path, dtype=dtype, layers=3, size="8KB")
        prune(whole, pruner="wanda", sparsity="2:4", modules="*.1.*", calibration=tiny.token_ids())
        plan = make_plan(Plugins(), pruner="wanda", sparsity="2:4", modules="*.1.*", calibration=tiny.token_ids())
        with Shards.open(folder, out) as shards:
            apply(plan, shards.model, None, placement=shards)
            shards.finish()
        assert tiny.same(reloaded(out), tiny.weights(whole))
