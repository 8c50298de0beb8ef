"""Commands that end after seconds: what they do not import, and that they search for no garbage."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness_ext.commands.garbage import kept_garbage
from harness_ext.plugins import HOOKS, Plugins

NUMERIC = {"numpy", "torch", "pandas", "scipy"}
MODELS = {"transformers", "accelerate", "peft", "lm_eval", "datasets"}
OF_OTHER_COMMANDS = {"matplotlib", "ray", "sklearn", "peft", "lm_eval.evaluator", "harness_ext.report", "harness_ext.testing"}
RUN = """
import atexit, gc, json, sys

def at_the_end():  # the first that is registered is the last that is called
    collections = sum(generation["collections"] for generation in gc.get_stats())
    print(json.dumps([sorted(sys.modules), collections - before, gc.get_freeze_count()]), file=sys.stderr)

atexit.register(at_the_end)
from harness_ext.commands.cli import app

before = sum(generation["collections"] for generation in gc.get_stats())
app(sys.argv[1:])
"""


def run(*words: str) -> tuple[set[str], int, int]:
    """The modules that a command has imported, how often Python looked for garbage, and how many objects it keeps for good."""
    ran = subprocess.run([sys.executable, "-c", RUN, *words], capture_output=True, text=True, timeout=300, check=True)
    modules, collections, frozen = json.loads(ran.stderr.splitlines()[-1])
    return set(modules), collections, frozen


@pytest.mark.parametrize("words", ["--help", "--version", "sweep --help", "prune --help", "models"])
def test_neither_numbers_nor_models_are_needed(words: str) -> None:
    assert run(*words.split())[0] & (NUMERIC | MODELS) == set()


@pytest.mark.parametrize("command", ["pruners", "plugins", "allocations", "calibrations"])
def test_a_list_of_methods_needs_torch_alone(command: str) -> None:
    modules, collections, frozen = run(command)
    assert modules & MODELS == set()
    assert collections < 100  # of what is imported before and printed after
    assert frozen > 10_000


def test_a_dry_run_needs_no_module_of_the_other_commands(tmp_path: Path) -> None:
    words = f"sweep --pretrained lab-xs --sparsity 0.5 --tasks icl_linear --metadata icl_items=16 --out {tmp_path / 'out'} --dry-run"
    modules, collections, frozen = run(*words.split())
    assert modules & OF_OTHER_COMMANDS == set()
    assert collections < 100
    assert frozen > 100_000


@pytest.mark.parametrize("hook", HOOKS)
def test_one_hook_registers_what_it_does_among_all(hook: str) -> None:
    kind = {"register_tasks": "task_folders"}.get(hook, hook.removeprefix("register_"))
    alone, every = Plugins(hooks=[hook]), Plugins()
    if kind == "task_folders":
        assert alone.task_folders == every.task_folders != []
    else:
        assert getattr(alone, kind).items == getattr(every, kind).items != {}
    assert not any(getattr(alone, f"{other}s").items for other in ("pruner", "calibration", "allocation", "model") if f"{other}s" != kind)


@pytest.mark.parametrize("searched", [True, False])
def test_garbage_is_searched_afterwards_as_it_was_before(searched: bool) -> None:
    was, within = gc.isenabled(), None

    def fail() -> None:
        nonlocal within
        with kept_garbage():
            within = gc.isenabled()
            raise ValueError("within")

    try:
        (gc.enable if searched else gc.disable)()
        with pytest.raises(ValueError, match="within"):
            fail()
        assert (within, gc.isenabled()) == (False, searched)
    finally:
        (gc.enable if was else gc.disable)()
