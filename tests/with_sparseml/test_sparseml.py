"""The pruners of SparseML: what they do, what they refuse, and that SparseML leaves nothing behind. In an environment of their own:

pip install -c plugins/harness_ext_sparseml/constraints.txt -e '.[sparseml]' pytest && pytest tests/with_sparseml
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import tiny
import torch
from environment import ROOT

import harness_ext
from harness_ext import BadOptionError, PluginError
from harness_ext.engine.layers import LinearLayer, find_blocks
from harness_ext.testing import PrunerContract

NAMES = ("sparseml", "sparseml-magnitude", "sparseml-obs", "sparseml-sparsegpt", "sparseml-wanda")
PAGE = (ROOT / "docs" / "sparseml.md").read_text(encoding="utf-8")

TRAINING = """
modifiers:
  - !{modifier}
      init_sparsity: 0.0
      final_sparsity: 0.5
      start_epoch: 0.0
      end_epoch: 1.0
      update_frequency: 1.0
      params: {params}
"""
ONE_SHOT = """
test_stage:
  pruning_modifiers:
    {modifier}:
      sparsity: 0.5
      sequential_update: true
      mask_structure: "0:0"
      targets: ["re:.*{layers}[.][0-9]+$"]
"""
ONE_SHOT_MAGNITUDE = """
test_stage:
  pruning_modifiers:
    MagnitudePruningModifier:
      init_sparsity: 0.0
      final_sparsity: 0.5
      start: 0.0
      end: 1.0
      update_frequency: 1.0
      targets: __ALL_PRUNABLE__
"""
DECODER = '["re:.*(attn|mlp).*weight"]'


def layers_of(model: torch.nn.Module) -> list[LinearLayer]:
    return [layer for block in find_blocks(model) for layer in block.layers]


def written(folder: Path, text: str) -> str:
    file = folder / "recipe.yaml"
    file.write_text(text, encoding="utf-8")
    return str(file)


def options_of(name: str, folder: Path) -> dict[str, str]:
    return {"recipe": written(folder, TRAINING.format(modifier="MagnitudePruningModifier", params=DECODER))} if name == "sparseml" else {}


WATCHED = """
import json, logging, os, random, socket, sys, threading
import numpy, torch
import tiny, harness_ext
from harness_ext.plugins import Plugins

attempts = []
def refuse(*arguments, **_):
    attempts.append(str(arguments[:2]))
    raise OSError("no network in this test")
socket.getaddrinfo = socket.create_connection = socket.socket.connect = refuse
torch.backends.cuda.matmul.allow_tf32 = True

def state():
    loggers = [logging.getLogger(name) for name in ("", "sparseml", "__main__", "sparseml.core.logger.logger")]
    return [str(part) for part in (
        dict(os.environ), torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, random.getstate(),
        numpy.random.get_state(), torch.get_rng_state().sum(), [(a.level, a.handlers, a.propagate) for a in loggers],
    )]

registered = sorted(Plugins().pruners.items)
imported = [name for name in sys.modules if name.split(".")[0] in ("sparseml", "sparsezoo")]
runs = [(tiny.model(), *run) for run in json.loads(sys.argv[1])]
harness_ext.prune(tiny.model(), pruner="wanda", sparsity=0.5, calibration=tiny.token_ids())
before = state()
for model, pruner, options in runs:
    harness_ext.prune(model, pruner=pruner, sparsity=0.5, calibration=tiny.token_ids(), pruner_options=options)
after = state()
for thread in threading.enumerate():
    if thread is not threading.current_thread():
        thread.join(timeout=5)
changed = [pair for pair in zip(before, after) if len(set(pair)) > 1]
print(json.dumps([registered, imported, attempts, os.listdir(), changed, "sparseml.core" in sys.modules]))
"""


class TestMagnitude(PrunerContract):
    pruner = "sparseml-magnitude"


class TestWanda(PrunerContract):
    pruner = "sparseml-wanda"
    several_processes = False  # SparseML keeps a mean over tokens, which does not add up


class TestSparseGPT(PrunerContract):
    pruner = "sparseml-sparsegpt"
    several_processes = False  # SparseML keeps a mean over tokens, which does not add up


class TestOBS(PrunerContract):
    pruner = "sparseml-obs"
    patterns = ()  # SparseML's OBS has none


def pruned(pruner: str, sparsity: float | str = 0.5, model: str = "llama", **options: object) -> tuple[torch.nn.Module, dict]:
    made = tiny.model(model)
    return made, harness_ext.prune(
        made, pruner=pruner, sparsity=sparsity, calibration=tiny.token_ids(), pruner_options=options, measure_error=True
    )


def masks(model: torch.nn.Module) -> list[torch.Tensor]:
    return [layer.weight == 0 for layer in layers_of(model)]


def same_masks(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(torch.equal(mine, theirs) for mine, theirs in zip(masks(one), masks(other), strict=True))


def test_sparseml_sends_nothing_writes_nothing_and_changes_no_global_state(tmp_path: Path) -> None:
    empty, recipes = tmp_path / "empty", tmp_path / "recipes"
    empty.mkdir()
    recipes.mkdir()
    recipe = written(recipes, ONE_SHOT.format(modifier="WandaPruningModifier", layers="layers"))
    runs = [["sparseml", {"recipe": recipe}], ["sparseml-obs", {}]]
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1] / 'support')!r})\n{WATCHED}"
    ran = subprocess.run(
        [sys.executable, "-c", code, json.dumps(runs)], cwd=empty, capture_output=True, text=True, check=False, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    registered, imported, attempts, files, changed, used = json.loads(ran.stdout)
    assert set(NAMES) <= set(registered)
    assert imported == []  # registering them imports nothing of SparseML
    assert used
    assert attempts == []
    assert files == []
    assert changed == []


@pytest.mark.parametrize("model", ["llama", "gpt2", "opt"])
@pytest.mark.parametrize("sparsity", [0.5, "2:4"])
def test_wanda_removes_the_same_weights_as_ours(model: str, sparsity: float | str) -> None:
    (theirs, record), (ours, other) = pruned("sparseml-wanda", sparsity, model), pruned("wanda", sparsity, model)
    assert same_masks(theirs, ours)
    assert record["calibration"] == other["calibration"]


def test_wanda_on_sparsemls_own_walk_through_the_model_removes_the_same_weights_as_ours(tmp_path: Path) -> None:
    recipe = written(tmp_path, ONE_SHOT.format(modifier="WandaPruningModifier", layers="layers"))
    theirs, record = pruned("sparseml", recipe=recipe)
    assert same_masks(theirs, pruned("wanda")[0])
    assert record["notes"]["sparseml"] == metadata.version("sparseml")
    assert len(record["notes"]["recipe_digest"]) == 16


@pytest.mark.parametrize("model", ["llama", "gpt2"])
@pytest.mark.parametrize("sparsity", [0.5, 0.71, "2:4"])
def test_sparsegpt_of_ours_leaves_no_larger_output_error(model: str, sparsity: float | str) -> None:
    errors = []
    for name in ("sparsegpt", "sparseml-sparsegpt"):
        _, record = pruned(name, sparsity, model, block_size=8)
        errors.append(sum(entry["output_error"] for entry in record["layers"].values()))
    assert 0 < errors[0] <= 1.01 * errors[1]


def test_sparsegpt_on_sparsemls_own_walk_leaves_the_error_that_its_layer_wrapper_leaves(tmp_path: Path) -> None:
    recipe = written(tmp_path, ONE_SHOT.format(modifier="SparseGPTModifier", layers="layers"))
    (theirs, _), (ours, _) = pruned("sparseml", recipe=recipe), pruned("sparseml-sparsegpt")
    for one, other in zip(layers_of(theirs)[:7], layers_of(ours)[:7], strict=True):  # the first block, which both see alike
        # Theirs removes one weight more, and corrects for it.
        assert int((one.weight == 0).sum()) - int((other.weight == 0).sum()) == 1
        assert ((one.weight == 0) | (other.weight != 0)).all()
        assert (one.weight - other.weight).norm() < 0.2 * other.weight.norm()


@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.77])
@pytest.mark.parametrize("block_size", [3, 8, 128])
def test_sparsegpt_removes_the_exact_number_whatever_the_blocks(sparsity: float, block_size: int) -> None:
    model, _ = pruned("sparseml-sparsegpt", sparsity, block_size=block_size)
    for layer in layers_of(model):
        assert int((layer.weight == 0).sum()) == int(sparsity * 100) * layer.weight.numel() // 100


@pytest.mark.parametrize("sparsity", [0.5, "2:4"])
def test_magnitude_removes_the_same_weights_as_ours(sparsity: float | str) -> None:
    for model in ("llama", "gpt2"):
        assert same_masks(pruned("sparseml-magnitude", sparsity, model)[0], pruned("magnitude", sparsity, model)[0])


def test_global_magnitude_removes_the_smallest_of_all_layers() -> None:
    magnitudes = torch.cat([layer.weight.abs().flatten() for layer in layers_of(tiny.model())])
    model, _ = pruned("sparseml-magnitude", scope="global")
    assert torch.equal(torch.cat([mask.flatten() for mask in masks(model)]), magnitudes <= magnitudes.median())


@pytest.mark.parametrize("model", ["llama", "gpt2"])
def test_block4_removes_the_groups_of_four_inputs_whose_mean_magnitude_is_smallest(model: str) -> None:
    made, _ = pruned("sparseml-magnitude", 0.25, model, mask="block4")
    for mask, dense in zip(masks(made), layers_of(tiny.model(model)), strict=True):
        means = dense.weight.reshape(-1, 4).abs().mean(1)
        assert torch.equal(mask.reshape(-1, 4), (means <= means.sort().values[len(means) // 4 - 1])[:, None].expand(-1, 4))


def test_obs_removes_what_the_loss_misses_least_by_its_gradients() -> None:
    """With blocks of one weight, ``w^2 / 2 [F^-1]_jj`` is ``w^2 (damping + mean g^2) / 2``."""
    dense, ids = tiny.model(), tiny.token_ids()
    squares = [torch.zeros_like(layer.weight) for layer in layers_of(dense)]
    for sequence in ids:
        dense.zero_grad()
        dense(input_ids=sequence[None], labels=sequence[None]).loss.backward()
        for total, layer in zip(squares, layers_of(dense), strict=True):
            total.add_(layer.module.weight.grad.square())
    made, _ = pruned("sparseml-obs", fisher_block_size=1)
    for mask, layer, total in zip(masks(made), layers_of(dense), squares, strict=True):
        score = layer.weight.square() * (1e-5 + total / len(ids))
        expected = score <= score.flatten().sort().values[score.numel() // 2 - 1]
        assert (mask != expected).sum() <= 2  # where rounding decides


@pytest.mark.parametrize(
    ("pruner", "sparsity", "options", "message"),
    [
        ("sparseml-magnitude", "2:4", {"scope": "global"}, "takes neither"),
        ("sparseml-magnitude", "2:4", {"mask": "block4"}, "takes neither"),
        ("sparseml-obs", "2:4", {}, "knows no patterns"),
    ],
)
def test_what_sparseml_cannot_do_is_refused(pruner: str, sparsity: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(BadOptionError, match=message):
        pruned(pruner, sparsity, **options)


def test_obs_does_not_group_the_outputs_of_a_conv1d() -> None:
    with pytest.raises(harness_ext.UnsupportedModelError, match="a Conv1D"):
        pruned("sparseml-obs", model="gpt2", mask="block4")


@pytest.mark.parametrize("name", NAMES)
def test_the_record_names_the_library_and_its_version(name: str, tmp_path: Path) -> None:
    _, record = pruned(name, **options_of(name, tmp_path))
    notes = record.get("notes") or next(iter(record["layers"].values()))
    assert notes["sparseml"] == "1.8.0"


def test_a_training_recipe_does_what_the_pruner_of_its_modifier_does(tmp_path: Path) -> None:
    for _ in range(2):  # the second run does not see the first
        made, _ = pruned("sparseml", **options_of("sparseml", tmp_path))
        assert tiny.same(tiny.weights(made), tiny.weights(pruned("sparseml-magnitude")[0]))


@pytest.mark.parametrize(
    ("text", "model"),
    [
        (ONE_SHOT_MAGNITUDE, "llama"),
        (ONE_SHOT.format(modifier="SparseGPTModifier", layers="h"), "gpt2"),
        (ONE_SHOT.format(modifier="WandaPruningModifier", layers="h"), "gpt2"),
    ],
    ids=["magnitude", "sparsegpt", "wanda"],
)
def test_a_recipe_that_sparseml_ignores_in_silence_is_an_error(text: str, model: str, tmp_path: Path) -> None:
    with pytest.raises(BadOptionError, match=r"sparsity=0\.5: .* left 0 zeros .*, as many as before"):
        pruned("sparseml", model=model, recipe=written(tmp_path, text))


def test_a_recipe_that_leaves_another_sparsity_than_asked_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadOptionError, match=r"sparsity=0\.7: .* which is a sparsity of 0\.5: ask for that"):
        pruned("sparseml", 0.7, **options_of("sparseml", tmp_path))


def test_a_recipe_that_prunes_more_than_the_decoder_is_an_error(tmp_path: Path) -> None:
    recipe = written(tmp_path, TRAINING.format(modifier="MagnitudePruningModifier", params="__ALL_PRUNABLE__"))
    with pytest.raises(BadOptionError, match=r"changed (model\.embed_tokens|lm_head)\.weight"):
        pruned("sparseml", recipe=recipe)


@pytest.mark.parametrize("text", re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL), ids=["one-shot", "training"])
def test_the_recipes_of_the_documentation_work(text: str, tmp_path: Path) -> None:
    _, record = pruned("sparseml", recipe=written(tmp_path, text))
    assert record["achieved_sparsity"] == pytest.approx(0.5, abs=0.01)


def test_what_fails_inside_sparseml_is_named_in_one_line(tmp_path: Path) -> None:
    recipe = written(tmp_path, TRAINING.format(modifier="MFACPruningModifier", params=DECODER))
    with pytest.raises(PluginError, match=r"^SparseML 1\.8\.0 failed: RuntimeError: MFAC .*"):
        pruned("sparseml", recipe=recipe)
