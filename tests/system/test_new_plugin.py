"""``harness-ext new-plugin`` and the examples: packages that are installed and pass their own tests as they stand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from environment import ROOT, SETTINGS
from typer.testing import CliRunner

from harness_ext import BadOptionError, new_plugin
from harness_ext.commands.cli import app
from harness_ext.plugins import Plugins

pytestmark = pytest.mark.slow


EXAMPLES = sorted(path for path in (ROOT / "examples").iterdir() if path.is_dir())
BROKEN = "harness-ext-broken-norms"
KINDS = {"pruner": "half-norms", "allocation": "rising", "calibration": "sums", "tasks": "next-digit"}
FOLDERS = [f"harness-ext-{name}" for name in KINDS.values()] + [example.name for example in EXAMPLES]


def python(*arguments, folder, path):
    environment = os.environ | SETTINGS | {"PYTHONPATH": str(path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def projects(tmp_path_factory):
    """The four skeletons and a copy of each example, side by side."""
    folder = tmp_path_factory.mktemp("projects")
    for kind, name in KINDS.items():
        made = CliRunner().invoke(app, ["new-plugin", name, "--kind", kind, "--out", str(folder)])
        assert made.exit_code == 0, made.output
    for example in EXAMPLES:
        shutil.copytree(example, folder / example.name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    assert CliRunner().invoke(app, ["new-plugin", "broken-norms", "--out", str(folder)]).exit_code == 0
    module = folder / BROKEN / "harness_ext_broken_norms.py"
    module.write_text(module.read_text(encoding="utf-8").replace("return weight", "return 0 / weight"), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def installed(projects, tmp_path_factory):
    """Where pip has installed them all, without a network."""
    target = tmp_path_factory.mktemp("site")
    command = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(target)]
    done = python(*command, *(str(projects / name) for name in [*FOLDERS, BROKEN]), folder=projects, path="")
    assert done.returncode == 0, done.stdout + done.stderr
    return target


@pytest.fixture(scope="module")
def outcomes(projects, installed):
    """What pytest says to the tests of all of them: the failures, and how many were run, by folder."""
    report, folders = projects / "report.xml", [*FOLDERS, BROKEN]
    tests = [f"{name}/tests" for name in folders]
    python("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir=.", f"--junitxml={report}", *tests, folder=projects, path=installed)
    found = {name: [0, []] for name in folders}
    for case in ET.parse(report).iter("testcase"):
        name = case.get("classname", "").split(".")[0]
        found[name][0] += 1
        found[name][1] += [f"{case.get('name')}: {child.get('message')}" for child in case]
    return found


@pytest.mark.parametrize("name", FOLDERS)
def test_its_own_tests_pass_where_it_is_installed(outcomes, name):
    ran, failed = outcomes[name]
    assert failed == []
    assert ran >= 5


def test_a_new_pruner_fails_its_tests_once_it_is_broken(outcomes):
    """Its scores are 0 / |W|, which is NaN for weights that are zero, and else removes the first weights whatever they are."""
    _, failed = outcomes[BROKEN]
    found = {failure.split(":")[0] for failure in failed}
    assert {"test_it_takes_rows_that_are_zero", "test_it_takes_inputs_that_are_always_zero"} <= found
    assert "test_it_has_a_name_and_a_docstring_and_overrides_a_method" not in found
    assert any("pruner 'broken-norms' on model.layers.0" in failure for failure in failed)


def test_a_pruner_is_at_most_15_lines_and_an_entry_point():
    files = new_plugin.render("half-norms", "pruner")
    source = files["harness_ext_half_norms.py"]
    assert len([line for line in source.splitlines() if line.strip()]) <= 15
    assert '[project.entry-points.harness_ext]\nhalf-norms = "harness_ext_half_norms"\n' in files["pyproject.toml"]


@pytest.mark.parametrize("kind", new_plugin.KINDS)
def test_the_skeletons_are_formatted_and_clean(kind, tmp_path):
    for path, text in new_plugin.render("some-name", kind).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
        assert "{{" not in text or path.endswith(".yaml")
        assert not re.search(r"[ \t]+$|\n\n\n\n|\n\n\Z", text, re.MULTILINE), path
    for command in (
        ["check", "--isolated", "--select=E,F,W,I,B,UP", "--line-length=140"],
        ["format", "--check", "--isolated", "--line-length=140"],
    ):
        done = subprocess.run(["ruff", *command, str(tmp_path)], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("First Columns", "first-columns"), ("first_columns", "first-columns"), ("FirstColumns", "first-columns"),
        ("first--columns", "first-columns"),
        ("-first", "first"), ("2nd", "nd"), ("harness-ext-first", "first"), ("../first", "first"), ("Größe", "gr-e"), ("x" * 41, "x" * 40),
    ],
)  # fmt: skip
def test_a_bad_name_is_refused_with_the_nearest_good_one(name, nearest, tmp_path):
    with pytest.raises(BadOptionError, match=re.escape(f"new-plugin {name!r}: want ") + f".* Did you mean '{nearest}'") as raised:
        new_plugin.write(name, "pruner", tmp_path)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []
    new_plugin.check_name(nearest, "pruner", set())


def test_a_name_without_letters_is_refused_without_a_guess(tmp_path):
    with pytest.raises(BadOptionError) as raised:
        new_plugin.write("!!", "pruner", tmp_path)
    assert "Did you mean" not in str(raised.value)


@pytest.mark.parametrize(("name", "kind"), [("wanda", "pruner"), ("owl", "allocation"), ("self", "calibration"), ("icl-linear", "tasks")])
def test_a_name_that_is_taken_is_refused(name, kind, tmp_path):
    with pytest.raises(BadOptionError, match=rf"there is a {kind.rstrip('s')} named .* already\. Did you mean 'my-{name}'\?"):
        new_plugin.write(name, kind, tmp_path)


def test_another_kind_is_refused_and_so_is_a_folder_that_exists_or_is_not_there(tmp_path):
    with pytest.raises(BadOptionError, match=r"--kind prunner: want pruner, allocation, calibration, tasks\. Did you mean 'pruner'\?"):
        new_plugin.write("first", "prunner", tmp_path)
    folder = new_plugin.write("first", "pruner", tmp_path)
    written = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(BadOptionError, match="harness-ext-first exists: want a new folder"):
        new_plugin.write("first", "allocation", tmp_path)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == written
    with pytest.raises(BadOptionError, match="want a path in a folder that exists"):
        new_plugin.write("first", "pruner", tmp_path / "nowhere")


def test_the_command_tells_errors_in_one_line_and_what_to_do_next(tmp_path):
    refused = CliRunner().invoke(app, ["new-plugin", "Wan da", "--out", str(tmp_path)])
    assert refused.exit_code == 1
    assert refused.stderr.startswith("BadOptionError: new-plugin 'Wan da': want ")
    made = CliRunner().invoke(app, ["new-plugin", "first", "--out", str(tmp_path)])
    assert made.exit_code == 0
    assert f"pytest {tmp_path / 'harness-ext-first'}" in made.output


def test_the_examples_are_one_of_each_rung():
    assert len(EXAMPLES) == 3
    sources = [next(example.glob("*.py")).read_text(encoding="utf-8") for example in EXAMPLES]
    rungs = [re.findall(r"def (prune_model|prune|score)\(self", source)[-1] for source in sources]
    assert sorted(rungs) == ["prune", "prune_model", "score"]
    assert not {"row-relative", "swap", "fisher"} & set(Plugins().pruners.items)  # they are examples, not part of the package


def test_every_example_has_a_readme_that_runs_it():
    for example in EXAMPLES:
        name = example.name.removeprefix("harness-ext-")
        assert f"pruner={name}," in (example / "README.md").read_text(encoding="utf-8")
        assert Path(example, "tests").is_dir()
