"""What does not fit a model is refused before its weights are loaded: of the models here, there are none."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from typer.testing import CliRunner

from harness_ext import BadOptionError, CalibrationError, HarnessExtError, PrunedHFLM, UnsupportedModelError, prune
from harness_ext.commands.cli import app
from harness_ext.sweep.fields import sweep_from
from harness_ext.sweep.prepared import Checked
from harness_ext.weights.masks import save_masks

LAYERS = [f"model.layers.{i}.{name}" for i in range(2) for name in tiny.LINEAR_LAYERS["llama"]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A Llama without weights: whoever tries to load them fails in another way."""
    folder = Path(tiny.checkpoint(tmp_path / "no-weights"))
    (folder / "model.safetensors").unlink()
    return folder


@pytest.fixture
def text(tmp_path: Path) -> str:
    file = tmp_path / "text.txt"
    file.write_text(" ".join("abcdefghijklmnopqrstuvwxyz" * 20))
    return str(file)


def listed(tmp_path: Path, content: Any) -> str:
    file = tmp_path / "list.json"
    file.write_text(json.dumps(content))
    return str(file)


def masks(tmp_path: Path, **settings: Any) -> str:
    model = tiny.model(**settings)
    save_masks(model, prune(model, pruner="magnitude", sparsity=0.5), tmp_path / "masks")
    return str(tmp_path / "masks")


Case = tuple[Callable[[Path], dict[str, Any]], type[HarnessExtError], str]
EVERYWHERE: dict[str, Case] = {
    "a pattern": (lambda _: {"sparsity": "2:5"}, BadOptionError, r"sparsity=2:5: model\.layers\.0\.self_attn\.q_proj has 16 inputs"),
    "a pattern of some layers": (
        lambda _: {"sparsity": "2:16"}, BadOptionError, r"sparsity=2:16: model\.layers\.0\.mlp\.down_proj has 24 inputs"
    ),
    "a pattern with owl": (
        lambda _: {"sparsity": "2:5", "allocation": "owl", "pruner": "wanda"}, BadOptionError, "which 5 does not divide"
    ),
    "a ratio above what owl removes": (
        lambda _: {"sparsity": 0.9999, "allocation": "owl", "pruner": "wanda"}, BadOptionError, "allocation 'owl' removes at most"
    ),
    "a list for other blocks": (
        lambda path: {"sparsity": 0.5, "allocation": listed(path, [0.5] * 3)}, BadOptionError, "the list has 3 entries"
    ),
    "a list of another sum": (
        lambda path: {"sparsity": 0.5, "allocation": listed(path, [0.5, 0.6])}, BadOptionError, r"the list adds up to 0\.55"
    ),
    "a list without some layers": (
        lambda path: {"sparsity": 0.5, "allocation": listed(path, {"*.q_proj": 0.5})}, BadOptionError, "no entry for"
    ),
    "a list of layers that are not there": (
        lambda path: {"sparsity": 0.5, "allocation": listed(path, {"*.qq_proj": 0.5, "*": 0.5})}, BadOptionError, "qq_proj' is no layer"
    ),
    "a pattern in a list": (
        lambda path: {"sparsity": 0.5, "allocation": listed(path, {"*.down_proj": "8:16", "*": 0.5})}, BadOptionError, "16 does not divide"
    ),
    "modules": (lambda _: {"sparsity": 0.5, "modules": "*.qq_proj"}, BadOptionError, r"modules='\*\.qq_proj' selects no layer"),
    "whole rows of torch": (
        lambda _: {"sparsity": 0.3, "pruner": "torch", "pruner.method": "ln_structured", "pruner.n": 2, "pruner.dim": 0},
        BadOptionError, "are no whole rows",
    ),
}  # fmt: skip
IN_MEMORY: dict[str, Case] = {
    "depth, next to nothing": (lambda _: {"sparsity": 0.1, "pruner": "depth"}, BadOptionError, r"the nearest is 0\.5, one block"),
    "depth, too far away": (
        lambda _: {"sparsity": 0.3, "pruner": "depth", "pruner.tolerance": 0.1}, BadOptionError, r"not within pruner\.tolerance=0\.1"
    ),
    "depth, of some modules": (lambda _: {"sparsity": 0.5, "pruner": "depth", "modules": "ffn"}, BadOptionError, "want all"),
    "width, out of reach": (lambda _: {"sparsity": 0.999, "pruner": "width"}, BadOptionError, "rounds to all of them"),
    "width, of a glob": (lambda _: {"sparsity": 0.5, "pruner": "width", "modules": "*.q_proj"}, BadOptionError, "want all, attention"),
    "masks of another model": (
        lambda path: {"sparsity": 0.5, "pruner": "stored", "pruner.path": masks(path, layers=3)}, BadOptionError, "a mask of model.layers.2"
    ),
    "masks of another width": (
        lambda path: {"sparsity": 0.5, "pruner": "stored", "pruner.path": masks(path, intermediate_size=32)},
        BadOptionError, r"the mask of model\.layers\.0\.mlp\.gate_proj is \(32, 16\), the weight \(24, 16\)",
    ),
    "fewer masks than asked": (
        lambda path: {"sparsity": 0.8, "pruner": "stored", "pruner.path": masks(path)}, BadOptionError, r"ask for sparsity=0\.5"
    ),
}  # fmt: skip
OF_TEXT: dict[str, Case] = {
    "sequences that are too long": (
        lambda _: {"sparsity": 0.5, "pruner": "wanda", "calibration.length": 33}, BadOptionError, "the model takes at most 32"
    ),
    "conversations without a template": (
        lambda path: {"sparsity": 0.5, "pruner": "wanda", "calibration": talk(path), "calibration.chat_template": True},
        CalibrationError, "the tokenizer has no chat template",
    ),
}  # fmt: skip


def talk(tmp_path: Path) -> str:
    (tmp_path / "talk.jsonl").write_text(json.dumps({"messages": [{"role": "user", "content": "a b"}]}) + "\n")
    return str(tmp_path / "talk.jsonl")


def words(arguments: dict[str, Any]) -> list[str]:
    """As the command line of ``harness-ext prune`` has them."""
    given: list[str] = []
    for name, value in arguments.items():
        given += ["-o", f"{name}={value}"] if "." in name else [f"--{name}", str(value)]
    return given


def refused(call: Callable[[], Any], kind: type[HarnessExtError], message: str) -> str:
    with pytest.raises(kind, match=message) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("which", EVERYWHERE | IN_MEMORY | OF_TEXT)
def test_by_pruned_hf(which: str, folder: Path, tmp_path: Path, text: str) -> None:
    build, kind, message = (EVERYWHERE | IN_MEMORY | OF_TEXT)[which]
    arguments = {"pruner": "magnitude", "calibration": text} | build(tmp_path)
    refused(lambda: PrunedHFLM(pretrained=str(folder), device="cpu", **arguments), kind, message)


@pytest.mark.parametrize(
    ("which", "stream"),
    [*((which, False) for which in EVERYWHERE | IN_MEMORY | OF_TEXT), *((which, True) for which in EVERYWHERE | OF_TEXT)],
)
def test_by_the_command(which: str, stream: bool, folder: Path, tmp_path: Path, text: str) -> None:
    build, kind, message = (EVERYWHERE | IN_MEMORY | OF_TEXT)[which]
    arguments = {"pruner": "magnitude", "calibration": text} | build(tmp_path)
    out = ("--pretrained", str(folder), "--out", str(tmp_path / "out"))
    done = CliRunner().invoke(app, ["prune", *words(arguments), *out, *(["--stream"] if stream else [])])
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    name, _, said = line.partition(": ")
    assert name == kind.__name__
    assert re.search(message, said), said


@pytest.mark.parametrize("which", EVERYWHERE | IN_MEMORY)
def test_by_a_sweep(which: str, folder: Path, tmp_path: Path, text: str) -> None:
    build, kind, message = (EVERYWHERE | IN_MEMORY)[which]
    arguments = {"pruner": "magnitude", "calibration": text} | build(tmp_path)
    fields: dict[str, Any] = {"pretrained": [str(folder)], "tasks": ["icl_linear"]}
    options = [f"{name}={value}" for name, value in arguments.items() if "." in name]
    fields |= {name: [str(value)] for name, value in arguments.items() if "." not in name} | {"options": options}
    said = refused(lambda: Checked(sweep_from(fields)), kind, message)
    assert arguments["pruner"] in said  # the trial


@pytest.mark.parametrize("which", EVERYWHERE | IN_MEMORY)
def test_in_memory_before_anything_is_computed(which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build, kind, message = (EVERYWHERE | IN_MEMORY)[which]
    arguments = {"pruner": "magnitude"} | build(tmp_path)
    options: dict[str, dict[str, Any]] = {}
    for name in [name for name in arguments if "." in name]:
        owner, _, option = name.partition(".")
        options.setdefault(f"{owner}_options", {})[option] = arguments.pop(name)
    model = tiny.model()
    before = tiny.weights(model)
    monkeypatch.setattr(type(model.model), "forward", lambda *_, **__: pytest.fail("the model computed something"))
    refused(lambda: prune(model, calibration=tiny.token_ids(), **arguments, **options), kind, message)
    assert tiny.same(tiny.weights(model), before)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (torch.full((2, 5), tiny.VOCABULARY), f"token ids from {tiny.VOCABULARY} to"),
        (torch.ones(2, 33, dtype=torch.int64), "sequences of 33 tokens, the model takes at most 32"),
    ],
)
def test_token_ids_that_are_not_the_models(folder: Path, ids: torch.Tensor, message: str) -> None:
    refused(
        lambda: PrunedHFLM(pretrained=str(folder), device="cpu", pruner="wanda", sparsity=0.5, calibration=ids), CalibrationError, message
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "float23"}, "dtype='float23': want auto, float32, bfloat16, float16"),
        ({"dtype": "flaot32"}, "Did you mean 'float32'"),
        ({"dtype": "nn"}, "dtype='nn': want"),
        ({"device": "cdua"}, "device='cdua': want a device such as cpu, cuda or cuda:1"),
    ],
)
def test_arguments_of_hf(folder: Path, arguments: dict[str, Any], message: str) -> None:
    refused(
        lambda: PrunedHFLM(pretrained=str(folder), pruner="magnitude", sparsity=0.5, **{"device": "cpu"} | arguments),
        BadOptionError, message,
    )  # fmt: skip


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps", "meta"])
def test_a_device_that_is_not_there(folder: Path, tmp_path: Path, device: str) -> None:
    out = ("--pretrained", str(folder), "--out", str(tmp_path / "out"), "--pruner", "magnitude", "--sparsity", "0.5")
    done = CliRunner().invoke(app, ["prune", *out, "--device", device])
    assert done.exit_code == 1
    assert f"--device {device}: there is no such device here" in done.stderr


def test_a_configuration_of_which_no_model_can_be_built(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_act": "none such"}))
    with pytest.raises(UnsupportedModelError, match="no model can be built from its configuration") as error:
        PrunedHFLM(pretrained=str(folder), pruner="magnitude", sparsity=0.5, device="cpu")
    assert "\n" not in str(error.value)
