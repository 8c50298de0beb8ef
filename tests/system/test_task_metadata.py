"""``--metadata`` of ``lm_eval`` and of ``harness-ext sweep``: names are checked before a model is loaded."""

from __future__ import annotations

import ast
import logging
from pathlib import Path

import lm_eval
import pytest
from lm_eval.config.evaluate_config import EvaluatorConfig
from refusals import raises_line
from sweeps import FIELDS
from typer.testing import CliRunner

from harness_ext import BadOptionError
from harness_ext.commands.cli import app
from harness_ext.host import registration
from harness_ext.host.task_metadata import nearest
from harness_ext.sweep.fields import sweep_from
from harness_ext.sweep.prepared import Checked


def keys_of_lm_eval() -> set[str]:
    """The names of all arguments of functions, and all texts in the ``get`` or ``pop`` of arguments or metadata, or in ``kwargs[]``."""
    names: set[str] = set()
    for file in Path(lm_eval.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                names |= {argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)}
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("get", "pop"):
                read = any(part in ast.unparse(node.func.value) for part in ("kwargs", "args", "metadata", "config"))
                names |= {str(key.value) for key in node.args[:1] if read and isinstance(key, ast.Constant)}
            elif isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("kwargs") and isinstance(node.slice, ast.Constant):
                names.add(str(node.slice.value))
    return names


def test_no_name_that_lm_eval_or_its_tasks_read_is_taken_for_one_of_ours() -> None:
    names = keys_of_lm_eval()
    assert {"max_seq_lengths", "pretrained", "tokenizer", "parallelize"} <= names
    assert {name: nearest(name) for name in names if nearest(name)} == {}


def test_the_command_line_refuses_a_misspelt_name() -> None:
    registration.register()
    config = EvaluatorConfig(tasks="icl_linear", metadata={"hop_items": 8, "pretrained": "x"})
    with raises_line(BadOptionError, "'hop_items'", "'hops_items'"):
        config.process_tasks(config.metadata)


@pytest.mark.parametrize(
    ("tasks", "option", "unread"),
    [
        ("icl_linear", "hops_values", True),
        ("icl_linear,kv_hops", "hops_values", False),
        ("memory_vs_context,icl", "lookup_pairs", False),
        ("memory_vs_context,icl", "mqar_values", True),
    ],
)
def test_the_command_line_says_what_no_task_reads(tasks: str, option: str, unread: bool, caplog: pytest.LogCaptureFixture) -> None:
    registration.register()
    config = EvaluatorConfig(tasks=tasks, metadata={option: 2, "icl_items": 8})
    with caplog.at_level(logging.WARNING, "harness_ext"):
        config.process_tasks(config.metadata)
    said = [record.getMessage() for record in caplog.records if option in record.getMessage()]
    assert len(said) == unread
    assert not any("icl_items" in line for line in said)


def test_a_sweep_does_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ran = CliRunner().invoke(
        app,
        [
            "sweep",
            "--pretrained",
            "lab-xs",
            "--pruner",
            "magnitude",
            "--tasks",
            "icl_linear",
            "--sparsity",
            "0.5",
            "--metadata",
            "hop_items=8",
            "--out",
            str(tmp_path / "out"),
        ],
    )
    assert ran.exit_code == 1
    assert "'hops_items'" in ran.stderr
    file = tmp_path / "sweep.yaml"
    file.write_text("pretrained: lab-xs\npruner: magnitude\ntasks: icl_linear\nsparsity: 0.5\nmetadata: {fact_items: 8}\n")
    ran = CliRunner().invoke(app, ["sweep", "--config", str(file), "--out", str(tmp_path / "out")])
    assert ran.exit_code == 1
    assert "'facts_items'" in ran.stderr
    with caplog.at_level(logging.WARNING, "harness_ext"):
        Checked(sweep_from(FIELDS | {"metadata": {"hops_items": 8, "icl_items": 8}}))
    assert sum("hops_items" in record.getMessage() for record in caplog.records) == 1
