"""``harness-ext prune``: from a checkpoint folder to a pruned one."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from harness_ext import BadOptionError, prune
from harness_ext.commands.cli import app
from harness_ext.engine.plan import ARGUMENTS
from harness_ext.host.arguments import parse_options

SMALL = ("-o", "calibration.samples=4", "-o", "calibration.length=12")


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["prune", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*arguments: object) -> str:
    """The one line on standard error."""
    result = CliRunner().invoke(app, ["prune", *map(str, arguments)])
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line


def loaded(folder: Path | str) -> dict[str, torch.Tensor]:
    return tiny.weights(AutoModelForCausalLM.from_pretrained(folder))


@pytest.fixture
def dense(tmp_path: Path) -> str:
    return tiny.checkpoint(tmp_path / "dense")


@pytest.fixture
def no_weights(tmp_path: Path) -> str:
    """A folder with all but the weights: whoever tries to load them fails in another way."""
    folder = tiny.checkpoint(tmp_path / "no-weights")
    (Path(folder) / "model.safetensors").unlink()
    return folder


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "text.txt"
    file.write_text(" ".join("the quick brown fox jumps over the lazy dog 0123456789".replace(" ", "") * 20))
    return file


class TestWhatIsWritten:
    def test_is_what_prune_makes_in_memory(self, tmp_path: Path, dense: str) -> None:
        line = run(
            "--pretrained",
            dense,
            "--out",
            tmp_path / "out",
            "--pruner",
            "sparsegpt",
            "--sparsity",
            0.5,
            *SMALL,
            "-o",
            "pruner.block_size=4",
        )
        model = AutoModelForCausalLM.from_pretrained(dense)
        options = {"calibration_options": {"samples": 4, "length": 12}, "pruner_options": {"block_size": 4}}
        record = prune(model, pruner="sparsegpt", sparsity=0.5, **options)
        assert tiny.same(loaded(tmp_path / "out"), tiny.weights(model))
        assert line == f"{tmp_path / 'out'}: sparsegpt, sparsity 0.5000 achieved, fingerprint {record['fingerprint']}\n"

    def test_has_the_tokenizer_the_record_and_a_card(self, tmp_path: Path, dense: str) -> None:
        run("--pretrained", dense, "--out", tmp_path / "out", "--pruner", "magnitude", "--sparsity", "2:4", "--modules", "ffn")
        record = json.loads((tmp_path / "out" / "pruning.json").read_text())
        assert (record["plan"]["sparsity"], record["plan"]["modules"]) == ("2:4", "ffn")
        assert record["source"] == {"pretrained": dense, "dtype": "auto"}
        assert AutoTokenizer.from_pretrained(tmp_path / "out")("a b")["input_ids"] == tiny.tokenizer()("a b")["input_ids"]
        assert record["fingerprint"] in (tmp_path / "out" / "README.md").read_text()

    @pytest.mark.parametrize(
        "arguments",
        [
            ("--pruner", "sparsegpt", "--sparsity", "0.3", *SMALL, "-o", "pruner.block_size=4", "--precision", "float64"),
            ("--pruner", "magnitude", "--sparsity", "1:4", "--modules", "*.q_proj", "-o", "pruner.per=row", "--dtype", "bfloat16"),
            ("--pruner", "wanda", "--sparsity", "0.5", "-o", "calibration.samples=3", "--calibration", "{text}", "--stream"),
        ],
    )
    def test_is_made_again_by_the_command_on_its_card(self, tmp_path: Path, dense: str, text: Path, arguments: tuple[str, ...]) -> None:
        run("--pretrained", dense, "--out", tmp_path / "out", *(argument.format(text=text) for argument in arguments))
        card = (tmp_path / "out" / "README.md").read_text()
        (line,) = re.findall(r"^harness-ext prune .*$", card, re.MULTILINE)
        words = shlex.split(line)
        assert words[-2:] == ["--out", "out"]
        run(*words[2:-1], tmp_path / "again")
        records = [json.loads((tmp_path / name / "pruning.json").read_text()) for name in ("out", "again")]
        assert records[0]["fingerprint"] == records[1]["fingerprint"]
        assert tiny.same(loaded(tmp_path / "out"), loaded(tmp_path / "again"))

    @pytest.mark.parametrize(("asked", "dtype"), [("auto", torch.bfloat16), ("float32", torch.float32), ("float16", torch.float16)])
    def test_has_the_dtype_that_was_asked_for(self, tmp_path: Path, asked: str, dtype: torch.dtype) -> None:
        folder = tiny.checkpoint(tmp_path / "dense", dtype=torch.bfloat16)
        for flags in ((), ("--stream",)):
            run(
                "--pretrained",
                folder,
                "--out",
                tmp_path / "out",
                "--pruner",
                "magnitude",
                "--sparsity",
                0.5,
                "--dtype",
                asked,
                "--force",
                *flags,
            )
            assert {tensor.dtype for tensor in loaded(tmp_path / "out").values()} == {dtype}

    def test_of_a_registered_name_by_default_the_embedded_model(self, tmp_path: Path) -> None:
        run("--out", tmp_path / "out", "--pruner", "magnitude", "--sparsity", 0.5, "--masks-only")
        record = json.loads((tmp_path / "out" / "pruning.json").read_text())
        assert record["source"]["pretrained"] == "lab-m"
        assert 'base_model: "lab-m"' in (tmp_path / "out" / "README.md").read_text()

    def test_a_tokenizer_whose_library_is_not_installed_is_one_line(
        self, tmp_path: Path, dense: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise ImportError("\nTokenizer requires the rjieba library.\nInstall it.")

        monkeypatch.setattr(AutoTokenizer, "from_pretrained", fail)
        done = CliRunner().invoke(app, ["prune", "--pretrained", dense, "--sparsity", "0.5", "--out", str(tmp_path / "out")])
        assert done.exit_code == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith("UnsupportedModelError: ")
        assert "rjieba" in line
        assert not (tmp_path / "out").exists()

    def test_needs_no_tokenizer_unless_text_is_read(self, tmp_path: Path, text: Path) -> None:
        tiny.model().save_pretrained(tmp_path / "dense")
        run("--pretrained", tmp_path / "dense", "--out", tmp_path / "out", "--pruner", "wanda", "--sparsity", 0.5, *SMALL)
        assert not list((tmp_path / "out").glob("tokenizer*"))
        (tmp_path / "dense" / "model.safetensors").unlink()
        line = refused(
            "--pretrained", tmp_path / "dense", "--out", tmp_path / "o", "--pruner", "wanda", "--sparsity", 0.5, "--calibration", text
        )
        assert line.startswith("CalibrationError: calibration 'file' needs a tokenizer, and there is none in ")

    def test_goes_on_from_what_was_done(self, tmp_path: Path, dense: str) -> None:
        common = ("--pretrained", dense, "--pruner", "sparsegpt", "--sparsity", 0.5, *SMALL, "--resume", tmp_path / "done")
        run("--out", tmp_path / "one", *common)
        assert len(list((tmp_path / "done").rglob("*"))) > 1
        run("--out", tmp_path / "two", *common)
        run("--out", tmp_path / "three", *common[:-2])
        assert tiny.same(loaded(tmp_path / "one"), loaded(tmp_path / "two"))
        assert tiny.same(loaded(tmp_path / "one"), loaded(tmp_path / "three"))

    def test_takes_structured_pruners(self, tmp_path: Path) -> None:
        dense = tiny.checkpoint(tmp_path / "dense", layers=4)
        run("--pretrained", dense, "--out", tmp_path / "out", "--pruner", "depth", "--sparsity", 0.5, *SMALL)
        assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.num_hidden_layers == 2


class TestMasksOnly:
    def test_are_applied_by_the_pruner_stored(self, tmp_path: Path, dense: str) -> None:
        common = ("--pretrained", dense, "--sparsity", "2:4")
        run(*common, "--out", tmp_path / "whole", "--pruner", "wanda", *SMALL)
        run(*common, "--out", tmp_path / "masks", "--pruner", "wanda", *SMALL, "--masks-only")
        assert sorted(os.listdir(tmp_path / "masks")) == ["README.md", "masks.safetensors", "pruning.json"]
        run(*common, "--out", tmp_path / "again", "--pruner", "stored", "-o", f"pruner.path={tmp_path / 'masks'}")
        assert tiny.same(loaded(tmp_path / "again"), loaded(tmp_path / "whole"))


class TestStream:
    @pytest.mark.parametrize("name", ["llama-gqa-tied", "gpt2", "gpt-neox"])
    @pytest.mark.parametrize("pruner", ["magnitude", "wanda", "sparsegpt"])
    def test_writes_the_same_weights(self, tmp_path: Path, text: Path, name: str, pruner: str) -> None:
        dense = tiny.checkpoint(tmp_path / "dense", name, layers=3)
        common = ("--pretrained", dense, "--pruner", pruner, "--sparsity", 0.5, "--calibration", text, "-o", "calibration.samples=4")
        run(*common, "--out", tmp_path / "whole")
        run(*common, "--out", tmp_path / "pieces", "--stream")
        assert tiny.same(loaded(tmp_path / "pieces"), loaded(tmp_path / "whole"))
        records = [json.loads((tmp_path / folder / "pruning.json").read_text()) for folder in ("whole", "pieces")]
        assert records[0]["fingerprint"] == records[1]["fingerprint"]
        files = [set(os.listdir(tmp_path / folder)) for folder in ("whole", "pieces")]
        assert {file for file in files[0] ^ files[1] if not file.startswith("model")} == set()

    def test_may_replace_its_own_source(self, tmp_path: Path, dense: str) -> None:
        run("--pretrained", dense, "--out", tmp_path / "out", "--pruner", "magnitude", "--sparsity", 0.25)
        run("--pretrained", tmp_path / "out", "--out", tmp_path / "out", "--pruner", "magnitude", "--sparsity", 0.5, "--stream", "--force")
        run("--pretrained", dense, "--out", tmp_path / "once", "--pruner", "magnitude", "--sparsity", 0.5)
        assert tiny.same(loaded(tmp_path / "out"), loaded(tmp_path / "once"))

    def test_that_fails_leaves_nothing(self, tmp_path: Path, dense: str) -> None:
        broken = Path(dense) / "model.safetensors"
        broken.write_bytes(broken.read_bytes()[:-100])
        line = refused("--pretrained", dense, "--out", tmp_path / "out", "--pruner", "magnitude", "--sparsity", 0.5, "--stream")
        assert "model.safetensors: cannot be read" in line
        assert os.listdir(tmp_path) == ["dense"]


class TestWrongOptions:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--sparsity", "70"), "for 70 percent say 0.7"),
            (("--sparsity", "0.5", "--pruner", "wnada"), "no pruner named 'wnada'. Did you mean 'wanda'?"),
            (("--sparsity", "0.5", "--precision", "double"), "precision='double'"),
            (("--sparsity", "0.5", "--allocation", "unifrom"), "Did you mean 'uniform'?"),
            (("--sparsity", "0.5", "--calibration", "slef"), "no calibration named 'slef'"),
            (("--sparsity", "0.5", "-o", "pruner.blok_size=4"), "has no option 'blok_size'. Did you mean 'block_size'?"),
            (("--sparsity", "0.5", "-o", "pruner.block_size=four"), "pruner.block_size='four'"),
            (("--sparsity", "0.5", "-o", "prunner.block_size=4"), "--option prunner.block_size=4: want pruner.NAME=VALUE"),
            (("--sparsity", "0.5", "-o", "pruner.block_size"), "want pruner.NAME=VALUE"),
            (("--sparsity", "0.5", "-o", "pruner.damping=1", "-o", "pruner.damping=2"), "pruner.damping is given twice"),
            (
                ("--sparsity", "0.5", "--dtype", "float61"),
                "--dtype float61: want auto, float32, bfloat16, float16. Did you mean 'float",
            ),
            (("--sparsity", "0.5", "--device", "cdua"), "--device cdua: want a device such as cpu, cuda or cuda:1"),
            (("--sparsity", "0.5", "--masks-only", "--stream"), "--masks-only does not go with --stream"),
            (("--sparsity", "0.5", "--stream"), "--stream does not go with calibration=self"),
            (("--sparsity", "0.5", "--pruner", "depth", "--masks-only"), "--masks-only does not go with pruner 'depth'"),
            (("--sparsity", "0.5", "--pruner", "width", "--stream"), "--stream does not go with pruner 'width'"),
            (("--sparsity", "0.5", "--pruner", "stored"), "pruner=stored wants pruner.path=FOLDER"),
        ],
    )
    def test_are_one_line_before_a_weight_is_loaded(
        self, tmp_path: Path, no_weights: str, arguments: tuple[str, ...], message: str
    ) -> None:
        assert message in refused("--pretrained", no_weights, "--out", tmp_path / "out", *arguments)
        assert not (tmp_path / "out").exists()

    def test_among_them_a_folder_that_exists(self, tmp_path: Path, no_weights: str) -> None:
        assert "the folder exists: want another path, or --force" in refused(
            "--pretrained", no_weights, "--out", tmp_path, "--sparsity", 0.5
        )
        assert "there is no pruning.json" in refused("--pretrained", no_weights, "--out", tmp_path, "--sparsity", 0.5, "--force")

    @pytest.mark.parametrize(
        ("pretrained", "message"),
        [
            (
                "lab-mm",
                "neither a registered model (lab-m, lab-s, lab-s4, lab-xs, smollm2-135m) nor a name on the hub. Did you mean 'lab-m'?",
            ),
            ("./nowhere", "--pretrained ./nowhere: no such folder"),
            ("{tmp}", "there is no config.json in this folder"),
        ],
    )
    def test_among_them_models_that_are_not_there(self, tmp_path: Path, pretrained: str, message: str) -> None:
        assert message in refused("--pretrained", pretrained.format(tmp=tmp_path), "--out", tmp_path / "out", "--sparsity", 0.5)

    @pytest.mark.parametrize("base", ["some/base", None])
    def test_a_folder_of_an_adapter_says_what_to_do(self, tmp_path: Path, base: str | None) -> None:
        (tmp_path / "adapter").mkdir()
        (tmp_path / "adapter/adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base, "peft_type": "LORA"}))
        line = refused("--pretrained", tmp_path / "adapter", "--out", tmp_path / "out", "--sparsity", 0.5)
        assert f"adapter of {base or 'BASE'}" in line
        assert "merge_and_unload" in line
        assert f"pretrained={base or 'BASE'},peft={tmp_path / 'adapter'}" in line

    def test_a_folder_without_weights_is_one_line(self, tmp_path: Path, no_weights: str) -> None:
        for flags in ((), ("--stream",)):
            line = refused("--pretrained", no_weights, "--out", tmp_path / "out", "--pruner", "magnitude", "--sparsity", 0.5, *flags)
            assert line.startswith("UnsupportedModelError: ")
            assert no_weights in line

    def test_help_has_every_option(self) -> None:
        shown = CliRunner().invoke(app, ["prune", "--help"], env={"COLUMNS": "200"}).stdout
        switches = {"calibration_cache": "no-calibration-cache"}
        names = [switches.get(name, name) for name in ARGUMENTS]
        for name in (*names, "pretrained", "out", "option", "dtype", "device", "masks-only", "stream", "force", "revision"):
            assert f"--{name.replace('_', '-')}" in shown

    def test_sparsity_and_out_have_no_default(self) -> None:
        for arguments in (["--out", "out"], ["--sparsity", "0.5"]):
            assert CliRunner().invoke(app, ["prune", *arguments]).exit_code == 2


class TestOptions:
    def test_have_the_types_that_lm_eval_reads(self) -> None:
        given = ["pruner.a=1", "pruner.b=0.5", "pruner.c=true", "pruner.d=row", "calibration.e='7'", "allocation.f=x=y", "pruner.g=None"]
        read = {
            "pruner.a": 1,
            "pruner.b": 0.5,
            "pruner.c": True,
            "pruner.d": "row",
            "calibration.e": "7",
            "allocation.f": "x=y",
            "pruner.g": None,
        }
        found = parse_options(given)
        assert found == read
        assert [type(value) for value in found.values()] == [type(value) for value in read.values()]

    @pytest.mark.parametrize("option", ["", "=1", "pruner=1", "block_size=4", "pruner.block_size"])
    def test_want_a_dotted_name_and_a_value(self, option: str) -> None:
        with pytest.raises(BadOptionError, match=r"want pruner\.NAME=VALUE"):
            parse_options([option])


@pytest.mark.slow
def test_the_command_works_from_a_shell(tmp_path: Path, dense: str) -> None:
    """Nothing but one line on standard output; on a standard error that is no terminal, lines that say how far it is."""
    command = [Path(sys.executable).parent / "harness-ext", "prune"]
    arguments = ["--pretrained", dense, "--out", "out", "--pruner", "wanda", "--sparsity", "0.5", *SMALL]
    done = subprocess.run([*command, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"out: wanda, sparsity 0\.5000 achieved, fingerprint [0-9a-f]{16}\n", done.stdout)
    assert re.search(
        r"wanda 0\.5: \d+ steps\n(.*\n)*.*wanda: sparsity 0\.5 asked, 0\.5000 achieved; .* fingerprint [0-9a-f]{16}\n", done.stderr
    )
    assert (tmp_path / "out" / "model.safetensors").is_file()
