"""The parts of scripts/kill_sweep.py and scripts/bench_sweep.py that can be wrong without anyone noticing."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


def script(name):
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def out(tmp_path):
    """What a sweep leaves, as far as the scripts look."""
    trial = tmp_path / "out" / "trials" / "0123456789abcdef"
    trial.mkdir(parents=True)
    (tmp_path / "out" / "lock").write_text("")
    (tmp_path / "out" / "results.csv").write_text("key\n")
    (trial / "samples_a.jsonl.gz").write_bytes(b"samples")
    return tmp_path / "out"


class TestKill:
    kill = script("kill_sweep")

    @pytest.mark.parametrize("file", ["results.csv", "trials/0123456789abcdef/samples_a.jsonl.gz"])
    @pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"other"), Path.unlink])
    def test_finds_a_difference(self, out, tmp_path, file, damage):
        expected = self.kill.contents(out)
        if file != "results.csv" or damage is not Path.unlink:
            damage(out / file)
            with pytest.raises(SystemExit, match=f"not the same bits: {file}"):
                self.kill.check(SimpleNamespace(returncode=0), out, expected, tmp_path / "log")

    def test_accepts_the_same_and_empties_the_folder(self, out, tmp_path):
        self.kill.check(SimpleNamespace(returncode=0), out, self.kill.contents(out), tmp_path / "log")
        assert not out.exists()

    def test_does_not_take_a_failure_for_an_end(self, out, tmp_path):
        (tmp_path / "log").write_text("what went wrong")
        with pytest.raises(SystemExit, match="exit code 1\nwhat went wrong"):
            self.kill.check(SimpleNamespace(returncode=1), out, self.kill.contents(out), tmp_path / "log")

    def test_says_where_a_sweep_was(self, out):
        assert self.kill.phase(out) == "after 1 trials"
        (out / ".results.csv.0.part").write_text("")
        assert self.kill.phase(out) == "while the table is written"
        (out / "trials" / ".x.part").mkdir()
        assert self.kill.phase(out) == "while a record is written"
        assert self.kill.phase(out / "none") == "before the folder"


def test_the_benchmark_says_what_it_extrapolates_and_fails_below_the_bar(monkeypatch, capsys, tmp_path):
    bench = script("bench_sweep")
    commands = []

    def seconds(command, folder):
        commands.append(command)
        return 10.0

    monkeypatch.setattr(bench, "seconds", seconds)
    bench.main("lab-xs", "magnitude", 16, False, 3, tmp_path / "figures.json")
    said = capsys.readouterr().out
    assert "54 separate processes: 540 s (EXTRAPOLATED from 3 of them, at their mean); ratio 54.0, the bar is 5" in said
    assert len(commands) == 5
    bench.main("lab-xs", "magnitude", 16, True, 3, None)
    assert "540 s (measured)" in capsys.readouterr().out
    assert len({str(command) for command in commands[5:-2]}) == 54
    monkeypatch.setattr(bench, "seconds", lambda command, folder: 200.0 if "sweep" in command else 10.0)
    with pytest.raises(SystemExit):
        bench.main("lab-xs", "magnitude", 16, False, 3, None)


@pytest.mark.parametrize("name", ["kill_sweep", "bench_sweep"])
def test_explains_itself(name):
    done = subprocess.run([sys.executable, str(SCRIPTS / f"{name}.py"), "--help"], check=True, capture_output=True, text=True)
    assert "Usage" in done.stdout
