"""Models that bring their own code: the pruned checkpoint brings it along and can be read again."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import tiny
import torch
import transformers.dynamic_module_utils
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from harness_ext.commands.cli import app
from harness_ext.weights.remote_code import copy_code

CONFIGURATION = """
from transformers import LlamaConfig
class MineConfig(LlamaConfig):
    model_type = "mine"
"""
MODELING = """
from transformers import LlamaForCausalLM
from .configuration_mine import MineConfig
class MineForCausalLM(LlamaForCausalLM):
    config_class = MineConfig
    def forward(self, *args, **kwargs):
        from .scaling import scaled
        return scaled(super().forward(*args, **kwargs))
"""
SCALING = """
from .constants import FACTOR
def scaled(output):
    output.logits = output.logits * FACTOR
    return output
"""
TOKENIZATION = """
from transformers import PreTrainedTokenizerFast
from .words import NAME
class MineTokenizer(PreTrainedTokenizerFast):
    said = NAME
"""
FILES = {
    "configuration_mine.py": CONFIGURATION,
    "modeling_mine.py": MODELING,
    "scaling.py": SCALING,
    "constants.py": "FACTOR = 2.0\n",
    "classification_mine.py": "from .labels import LABELS\n",  # named, and not used here
    "labels.py": "LABELS = 3\n",
    "tokenization_mine.py": TOKENIZATION,
    "words.py": "NAME = 'mine'\n",
}
AUTO_MAP = {
    "AutoConfig": "configuration_mine.MineConfig",
    "AutoModelForCausalLM": "modeling_mine.MineForCausalLM",
    "AutoModelForSequenceClassification": "classification_mine.MineForSequenceClassification",
}


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of its own for the modules of transformers, so that nothing is found that an earlier load left."""
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [place for place in sys.path if not (Path(place) / "transformers_modules").is_dir()])
    for name in [name for name in sys.modules if name.startswith("transformers_modules")]:
        monkeypatch.delitem(sys.modules, name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "mine-dense"
    tiny.checkpoint(folder)
    for name, text in FILES.items():
        (folder / name).write_text(text)
    (folder / "unrelated.py").write_text("raise SystemExit\n")
    for name, changes in {
        "config.json": {"model_type": "mine", "auto_map": AUTO_MAP, "architectures": ["MineForCausalLM"]},
        "tokenizer_config.json": {
            "auto_map": {"AutoTokenizer": [None, "tokenization_mine.MineTokenizer"]},
            "tokenizer_class": "MineTokenizer",
        },
    }.items():
        (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | changes))
    return folder


def prune(folder: Path, out: Path, *flags: str) -> None:
    how = ("--pruner", "magnitude", "--sparsity", "0.5", "--trust-remote-code")
    done = CliRunner().invoke(app, ["prune", "--pretrained", str(folder), *how, "--out", str(out), *flags])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("flags", [(), ("--stream",)], ids=["whole", "streamed"])
def test_the_output_is_read_again(folder: Path, tmp_path: Path, flags: tuple[str, ...]) -> None:
    dense = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    prune(folder, tmp_path / "mine-pruned", *flags)
    shutil.rmtree(folder)
    out = tmp_path / "mine-pruned"
    assert {file.name for file in out.glob("*.py")} == FILES.keys()
    model = AutoModelForCausalLM.from_pretrained(out, trust_remote_code=True)
    assert type(model).__name__ == "MineForCausalLM"
    assert type(AutoConfig.from_pretrained(out, trust_remote_code=True)).__name__ == "MineConfig"
    assert AutoTokenizer.from_pretrained(out, trust_remote_code=True).said == "mine"
    weight = model.model.layers[0].mlp.up_proj.weight
    assert (weight == 0).float().mean() == 0.5
    ids = tiny.token_ids()
    with torch.no_grad():
        hidden = model.model(ids).last_hidden_state
        assert model(ids).logits.equal(model.lm_head(hidden) * 2)
    assert dense.model.norm.weight.equal(model.model.norm.weight)


def test_both_ways_write_the_same(folder: Path, tmp_path: Path) -> None:
    prune(folder, tmp_path / "whole")
    prune(folder, tmp_path / "streamed", "--stream")
    for name, text in FILES.items():
        assert (tmp_path / "whole" / name).read_text() == (tmp_path / "streamed" / name).read_text() == text
    one, other = (AutoModelForCausalLM.from_pretrained(tmp_path / name, trust_remote_code=True) for name in ("whole", "streamed"))
    assert tiny.same(tiny.weights(one), tiny.weights(other))


class TestCopy:
    @pytest.fixture
    def out(self, tmp_path: Path) -> Path:
        (tmp_path / "out").mkdir()
        return tmp_path / "out"

    def write(self, tmp_path: Path, reference: object, **files: str) -> Path:
        source = tmp_path / "source"
        (source / "parts" / "deep").mkdir(parents=True)
        (source / "config.json").write_text(json.dumps({"auto_map": {"AutoModelForCausalLM": reference}}))
        for name, text in files.items():
            (source / name.replace("__", "/")).with_suffix(".py").write_text(text)
        return source

    @pytest.mark.parametrize(
        ("imported", "file"),
        [
            ("from .helper import x", "helper.py"),
            ("from . import helper", "helper.py"),
            ("from .parts import x", "parts/__init__.py"),
            ("from .parts.norm import x", "parts/norm.py"),
            ("from .parts.deep import norm", "parts/deep/norm.py"),
            ("try:\n    from .helper import (\n        x,\n    )\nexcept ImportError:\n    pass", "helper.py"),
            ("def f():\n    from .helper import x", "helper.py"),
        ],
    )
    def test_finds_relative_imports(self, tmp_path: Path, out: Path, imported: str, file: str) -> None:
        source = self.write(tmp_path, "modeling.Mine", modeling=imported)
        (source / file).write_text("x = 1\n")
        copy_code(source, out)
        assert {str(path.relative_to(out)) for path in out.rglob("*.py")} == {"modeling.py", file}

    def test_also_those_of_packages_and_of_each_other(self, tmp_path: Path, out: Path) -> None:
        source = self.write(
            tmp_path, "modeling.Mine", modeling="from .parts.norm import x", parts__norm="from ..helper import x\nfrom .other import y",
            parts__other="from .norm import x", helper="import os", unused="",
        )  # fmt: skip
        copy_code(source, out)
        assert {str(path.relative_to(out)) for path in out.rglob("*.py")} == {"modeling.py", "helper.py", "parts/norm.py", "parts/other.py"}

    @pytest.mark.parametrize("reference", ["someone/else--modeling.Mine", "..secret.Mine", "../secret.Mine", "/secret.Mine", "", 3, None])
    def test_leaves_what_is_elsewhere(self, tmp_path: Path, out: Path, reference: object) -> None:
        source = self.write(tmp_path, reference, modeling="")
        (tmp_path / "secret.py").write_text("x = 1\n")
        copy_code(source, out)
        assert not list(out.iterdir())

    def test_no_file_outside_of_the_checkpoint_is_read_for_an_import(self, tmp_path: Path, out: Path) -> None:
        (tmp_path / "secret.py").write_text("x = 1\n")
        copy_code(self.write(tmp_path, "modeling.Mine", modeling="from ..secret import x\nfrom .. import secret"), out)
        assert [path.name for path in out.iterdir()] == ["modeling.py"]
