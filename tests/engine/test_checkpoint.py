"""BlockCheckpoints of pruned models: what is in them, and that they are whole or not there."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import yaml
from filelock import FileLock
from refusals import raises_line
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness_ext import BadOptionError, prune
from harness_ext.atomic import WriteError, whole_folder
from harness_ext.weights.export import save
from harness_ext.weights.folder import RECORD, check_out


def pruned(name: str = "llama", dtype: torch.dtype = torch.float32, **options: Any) -> tuple[Any, dict[str, Any]]:
    model = tiny.model(name, dtype=dtype)
    return model, prune(model, **({"pruner": "magnitude", "sparsity": 0.5} | options))


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(tiny.token_ids()).logits


class TestWhatIsWritten:
    @pytest.mark.parametrize(
        ("name", "dtype"), [*((name, torch.bfloat16) for name in tiny.ARCHITECTURES), ("gpt2", torch.float16), ("llama", torch.float32)]
    )
    def test_reloads_bit_for_bit(self, tmp_path: Path, name: str, dtype: torch.dtype) -> None:
        tiny.model(name, dtype=dtype).save_pretrained(tmp_path / "dense")
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "dense").eval()
        record = prune(model, pruner="magnitude", sparsity=0.5)
        save(model, None, record, tmp_path / "out")
        reloaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
        assert tiny.same(tiny.weights(reloaded), tiny.weights(model))
        assert logits(reloaded).equal(logits(model))
        assert reloaded.dtype == dtype

    def test_tied_weights_are_stored_once_and_stay_tied(self, tmp_path: Path) -> None:
        model, record = pruned("llama-gqa-tied")
        save(model, None, record, tmp_path / "out")
        with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
            assert "lm_head.weight" not in file.keys()  # noqa: SIM118 - not a dict
        reloaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
        assert reloaded.get_input_embeddings().weight is reloaded.get_output_embeddings().weight

    def test_holds_the_tokenizer_and_the_generation_settings(self, tmp_path: Path) -> None:
        model, record = pruned()
        model.generation_config.max_new_tokens = 7
        save(model, tiny.tokenizer(), record, tmp_path / "out")
        assert AutoTokenizer.from_pretrained(tmp_path / "out")("a b 1")["input_ids"] == tiny.tokenizer()("a b 1")["input_ids"]
        assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").generation_config.max_new_tokens == 7

    def test_holds_generation_settings_that_contradict_each_other(self, tmp_path: Path) -> None:
        """As those of some models on the hub do; transformers loads them and refuses to save them."""
        model, record = pruned()
        model.generation_config.temperature = 0.5
        with pytest.raises(ValueError, match="temperature"):
            model.save_pretrained(tmp_path / "plain")
        save(model, None, record, tmp_path / "out")
        assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").generation_config.temperature == 0.5
        assert model.generation_config.temperature == 0.5

    def test_holds_the_whole_record(self, tmp_path: Path) -> None:
        model, record = pruned()
        save(model, None, record, tmp_path / "out")
        assert json.loads((tmp_path / "out" / "pruning.json").read_text()) == record

    def test_can_be_read_by_whoever_can_read_other_files(self, tmp_path: Path) -> None:
        model, record = pruned()
        save(model, None, record, tmp_path / "out")
        (tmp_path / "other").write_text("")
        assert {path.stat().st_mode for path in (tmp_path / "out").iterdir()} == {(tmp_path / "other").stat().st_mode}


class TestModelCard:
    def card(self, tmp_path: Path, **options: Any) -> tuple[dict[str, Any], str, dict[str, Any]]:
        model, record = pruned(**options)
        record["source"] = {"pretrained": "some/model", "dtype": "auto"}
        save(model, None, record, tmp_path / "out")
        _, front, body = (tmp_path / "out" / "README.md").read_text().split("---\n", 2)
        return yaml.safe_load(front), body, record

    def test_begins_with_what_the_hub_reads(self, tmp_path: Path) -> None:
        front, _, _ = self.card(tmp_path)
        assert front["base_model"] == "some/model"
        assert front["library_name"] == "transformers"
        assert {"pruned", "magnitude"} <= set(front["tags"])

    def test_says_what_was_done(self, tmp_path: Path) -> None:
        _, body, record = self.card(tmp_path, pruner="wanda", sparsity="2:4", calibration=tiny.token_ids())
        calibration = record["calibration"]["digest"]
        for text in (record["fingerprint"], record["dense_digest"], calibration, "2:4", "0.500000", f"torch {torch.__version__}"):
            assert text in body

    def test_has_the_sparsity_of_each_block_and_kind(self, tmp_path: Path) -> None:
        _, body, record = self.card(tmp_path, modules="ffn", pruner="random", sparsity=0.3)
        zeros = [entry["zeros"] for name, entry in record["layers"].items() if ".1." in name]
        assert f"| 1 | {sum(zeros) / (3 * tiny.WIDTH * tiny.INNER):.4f} |" in body
        assert "| block | ffn | all |" in body

    def test_of_a_folder_names_no_base_model_to_the_hub(self, tmp_path: Path) -> None:
        model, record = pruned()
        record["source"] = {"pretrained": "/models/mine"}
        save(model, None, record, tmp_path / "out")
        front = (tmp_path / "out" / "README.md").read_text().split("---\n", 2)[1]
        assert "base_model" not in yaml.safe_load(front)

    def test_options_do_not_break_the_table(self, tmp_path: Path) -> None:
        model, record = pruned()
        record["plan"]["pruner_options"] = {"path": "a|b\nc"}
        save(model, None, record, tmp_path / "out")
        (line,) = (line for line in (tmp_path / "out" / "README.md").read_text().splitlines() if line.startswith("| method"))
        assert line.replace(r"\|", "").count("|") == 3


class TestOut:
    def test_that_exists_is_refused_and_left_alone(self, tmp_path: Path) -> None:
        out = tmp_path / "out"
        out.mkdir()
        (out / "mine").write_text("mine")
        model, record = pruned()
        with raises_line(BadOptionError, "--out", "out", "--force"):
            save(model, None, record, out)
        assert [path.name for path in out.iterdir()] == ["mine"]

    def test_is_replaced_by_force(self, tmp_path: Path) -> None:
        out = tmp_path / "out"
        for sparsity in (0.25, 0.75):
            model, record = pruned(sparsity=sparsity)
            (save(model, tiny.tokenizer(), record, out) if sparsity == 0.25 else save(model, None, record, out, force=True))
        assert json.loads((out / "pruning.json").read_text())["plan"]["sparsity"] == "0.75"
        assert not (out / "tokenizer.json").exists()
        assert os.listdir(tmp_path) == ["out"]

    def test_that_was_not_written_here_is_not_replaced_even_by_force(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").write_text("")
        with raises_line(BadOptionError, "--out", "--force", "pruning.json"):
            check_out(tmp_path, force=True)

    def test_of_another_command_is_named_without_options_of_this_one(self, tmp_path: Path) -> None:
        """Sweeps, which have no --force, write trials with ``whole_folder``."""
        (tmp_path / "file").write_text("")
        for path, replace in ((tmp_path, False), (tmp_path / "file", True), (tmp_path / "no" / "folder", True)):
            with raises_line(BadOptionError, str(path)) as refused, whole_folder(path, replace=replace):
                pass
            assert "--" not in str(refused.value)

    def test_that_is_a_file_is_not_replaced_even_by_force(self, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("")
        with raises_line(BadOptionError, "--out", "file"):
            check_out(tmp_path / "out", force=True)

    def test_wants_a_folder_around_it(self, tmp_path: Path) -> None:
        with raises_line(BadOptionError, "--out", "folder"):
            check_out(tmp_path / "no" / "out", force=False)

    def test_wants_to_be_allowed_to_write(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "access", lambda *_: False)
        with raises_line(BadOptionError, "--out", "permission", str(tmp_path)):
            check_out(tmp_path / "out", force=False)

    def test_may_be_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(tmp_path / "out")
        with whole_folder(tmp_path / "link") as part:
            (part / "pruning.json").write_text("1")
        with whole_folder(tmp_path / "link", replace=True) as part:
            (part / "pruning.json").write_text("2")
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "out" / "pruning.json").read_text() == "2"


class TestFailures:
    def test_of_the_disk_are_one_line_that_names_the_path_and_leave_nothing(self, tmp_path: Path) -> None:
        """A limit on the size of files does what a full disk does."""
        model, record = pruned()
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        try:
            with raises_line(WriteError, str(tmp_path / "out")):
                save(model, None, record, tmp_path / "out")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert os.listdir(tmp_path) == []

    def test_at_the_last_moment_leave_what_was_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        model, record = pruned()
        save(model, None, record, tmp_path / "out")
        before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with raises_line(WriteError, "out: ", "No space left on device"):
            save(*pruned(sparsity=0.75)[:1], None, record, tmp_path / "out", force=True)
        assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
        assert os.listdir(tmp_path) == ["out"]

    @pytest.mark.parametrize("fails", ["part", "old"])
    def test_of_either_rename_leave_what_was_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
        with whole_folder(tmp_path / "out") as part:
            (part / "mine").write_text("old")
        rename = os.rename

        def refuses(old: Path, new: Path) -> None:
            if Path(old if fails == "part" else new).name.endswith(f".{fails}"):
                raise OSError(errno.EBUSY, "Device or resource busy")
            rename(old, new)

        with monkeypatch.context() as patch, raises_line(WriteError, "out: ", "busy"), whole_folder(tmp_path / "out", replace=True) as part:
            (part / "mine").write_text("new")
            patch.setattr(os, "rename", refuses)
        assert (tmp_path / "out" / "mine").read_text() == "old"
        assert os.listdir(tmp_path) == ["out"]

    def test_of_another_kind_pass_through_and_leave_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(KeyError), whole_folder(tmp_path / "out") as part:
            {}[(part / "half").write_text("half")]
        assert os.listdir(tmp_path) == []

    def test_everything_is_on_the_disk_before_it_has_its_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        steps: list[str] = []
        fsync, rename = os.fsync, os.rename

        def spy_fsync(handle: int) -> None:
            steps.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name.split(".part")[0])
            fsync(handle)

        def spy_rename(old: Path, new: Path) -> None:
            steps.append("rename")
            rename(old, new)

        monkeypatch.setattr(os, "fsync", spy_fsync)
        monkeypatch.setattr(os, "rename", spy_rename)
        with whole_folder(tmp_path / "out") as part:
            (part / "inner").mkdir()
            (part / "inner" / "file").write_text("1")
        assert set(steps[: steps.index("rename")]) >= {"file", "inner"}
        assert steps[-2:] == ["rename", tmp_path.name]


SAVING = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import tiny
from harness_ext import prune
from harness_ext.weights.export import save
models = [tiny.model(layers=4), tiny.model(layers=4, seed=1)]
records = [prune(model, pruner="magnitude", sparsity=0.5) for model in models]
for out in map(Path, sys.argv[1:]):
    child = os.fork()
    if not child:
        turn, end = 0, time.monotonic() + 30
        while time.monotonic() < end:
            save(models[turn % 2], None, records[turn % 2], out, force=True)
            turn += 1
        os._exit(0)
    os.write(1, f"{{child}}\\n".encode())
for _ in sys.argv[1:]:
    os.wait()
"""


class TestKilled:
    @pytest.mark.slow
    def test_at_any_moment_leaves_a_whole_checkpoint_or_none(self, tmp_path: Path) -> None:
        """Three processes write in a loop, over and over to the same place."""
        whole = []
        for seed in (0, 1):
            model = tiny.model(layers=4, seed=seed)
            prune(model, pruner="magnitude", sparsity=0.5)
            whole.append(tiny.weights(model))
        outs, delays = [tmp_path / f"out{number}" for number in range(3)], random.Random(0)
        script = SAVING.format(tests=str(Path(__file__).parents[1] / "support"))
        with subprocess.Popen([sys.executable, "-c", script, *map(str, outs)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
            assert parent.stdout is not None
            children = [int(parent.stdout.readline()) for _ in outs]
            for out, child in zip(outs, children, strict=True):
                deadline = time.monotonic() + 20
                while not out.exists() and time.monotonic() < deadline:
                    time.sleep(0.01)
                time.sleep(delays.uniform(0, 0.3))
                os.kill(child, signal.SIGKILL)
        for out in outs:
            if out.exists():
                found = tiny.weights(AutoModelForCausalLM.from_pretrained(out))
                assert any(tiny.same(found, one) for one in whole)
                assert json.loads((out / "pruning.json").read_text())["fingerprint"]
                assert (out / "README.md").read_text().endswith("\n")
            with whole_folder(out, replace=True) as part:
                (part / "pruning.json").write_text("{}")
        assert sorted(os.listdir(tmp_path)) == ["out0", "out1", "out2"]

    def test_its_leftovers_are_deleted_next_time(self, tmp_path: Path) -> None:
        (tmp_path / ".out.0123abcd.part").mkdir()
        (tmp_path / ".out.0123abcd.part" / "half").write_text("half")
        (tmp_path / ".out.0123abcd.part.lock").write_text("")
        (tmp_path / ".out.89abcdef.part.lock").write_text("")
        others = {".outer.0123abcd.part", ".out.mine.part", "xout.0123abcd.part"}
        for name in others:
            (tmp_path / name).mkdir()
        with whole_folder(tmp_path / "out"):
            pass
        assert set(os.listdir(tmp_path)) == {"out", *others}

    def test_those_of_a_process_that_is_alive_are_left_alone(self, tmp_path: Path) -> None:
        with whole_folder(tmp_path / "out") as part:
            (part / "half").write_text("half")
            with whole_folder(tmp_path / "out"):
                pass
            assert (part / "half").read_text() == "half"
            (tmp_path / "out").rename(tmp_path / "first")
        assert set(os.listdir(tmp_path)) == {"first", "out"}

    def test_between_the_two_renames_the_old_folder_comes_back(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with whole_folder(tmp_path / "out") as part:
            (part / "pruning.json").write_text("old")

        class Killed(BaseException):
            pass

        rename = os.rename

        def killed(old: Path, new: Path) -> None:
            if Path(new).name == "out":
                raise Killed
            rename(old, new)

        with monkeypatch.context() as patch, pytest.raises(Killed), whole_folder(tmp_path / "out", replace=True) as part:
            patch.setattr(os, "rename", killed)
        assert not (tmp_path / "out").exists()
        with raises_line(BadOptionError, "--out", "--force"):
            check_out(tmp_path / "out", force=False)
        assert (tmp_path / "out" / "pruning.json").read_text() == "old"
        assert os.listdir(tmp_path) == ["out"]

    def test_the_lock_that_says_so_ends_with_the_process(self, tmp_path: Path) -> None:
        code = "import os, sys; from pathlib import Path; from harness_ext.atomic import whole_folder\n"
        code += "with whole_folder(Path(sys.argv[1])) as part: (part / 'half').write_text('half'); os.kill(os.getpid(), 9)"
        assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], check=False).returncode == -signal.SIGKILL
        (lock,) = tmp_path.glob(".out.*.part.lock")
        with FileLock(lock, timeout=0):
            assert len(os.listdir(tmp_path)) == 2
        check_out(tmp_path / "out", force=False)
        assert os.listdir(tmp_path) == []


def test_the_record_is_what_marks_a_folder_that_was_written_here() -> None:
    assert RECORD == "pruning.json"
