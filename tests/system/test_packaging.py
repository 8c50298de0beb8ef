"""What a wheel and an editable install put into an environment, seen from another folder and through the stock ``lm_eval`` command."""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
import zipfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from environment import ROOT, THIRD_PARTY, Environment, build, start_up_seconds
from packaging.requirements import Requirement

pytestmark = pytest.mark.slow

KINDS = ("wheel", "editable")
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
FACTS = """
import importlib, json, sys
facts = {"importable": []}
for name in ("plugins", "task_configs", "tests", "scripts", "hatch_build", "train_lab"):
    try:
        importlib.import_module(name)
        facts["importable"].append(name)
    except ImportError:
        pass
import lm_eval.models
from lm_eval.api.registry import model_registry
from lm_eval.tasks import TaskManager
facts["torch at registration"] = "torch" in sys.modules
facts["class"] = str(model_registry.get("pruned-hf"))
facts["hf"] = "hf" in model_registry
facts["tasks"] = [name for name in TaskManager().all_tasks if name.startswith("icl")]
import harness_ext
from harness_ext.plugins import Plugins

plugins = Plugins()
facts["file"] = harness_ext.__file__
facts["version"] = harness_ext.__version__
facts["broken"] = [str(broken) for broken in plugins.broken]
facts["pruners"] = sorted(plugins.pruners.items)
facts["calibrations"] = sorted(plugins.calibrations.items)
facts["lab"] = str(plugins.models.get("lab-m")[0])
facts["task folders"] = [str(folder) for folder, _ in plugins.task_folders]
print(json.dumps(facts))
"""


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel") / "dist")


@pytest.fixture(scope="session", params=KINDS)
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> tuple[str, Environment]:
    """One environment of each kind for all tests, the last of which uninstalls it."""
    environment = Environment(tmp_path_factory.mktemp(request.param) / "venv")
    if request.param == "wheel":
        environment.pip("install", wheel)  # fails unless all that is required is there
    else:
        environment.pip("install", "--no-deps", "--no-build-isolation", "--editable", ROOT)
    return request.param, environment


@pytest.fixture(scope="session")
def facts(installed: tuple[str, Environment]) -> dict[str, Any]:
    return installed[1].json(FACTS)


@pytest.fixture(scope="session")
def crowded(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Environment:
    """An environment with our wheel and, beside the plugin that works, all that do not."""
    folder = tmp_path_factory.mktemp("crowded")
    environment = Environment(folder / "venv")
    wheels = [build("wheel", project, folder / project.name) for project in sorted(THIRD_PARTY.iterdir())]
    assert len(wheels) == 5
    environment.pip("install", "--no-deps", wheel, *wheels)
    return environment


def names(archive: Path) -> list[str]:
    with zipfile.ZipFile(archive) as opened:
        return opened.namelist()


def sources(folder: str) -> set[Path]:
    """The files of a folder of the checkout, relative to it."""
    found = {path.relative_to(ROOT / folder) for path in (ROOT / folder).rglob("*") if path.is_file()}
    return {path for path in found if "__pycache__" not in path.parts and not any(part.startswith(".") for part in path.parts)}


def test_the_wheel_holds_the_packages_the_tasks_and_the_start_up_line_and_nothing_else(wheel: Path) -> None:
    expected = {f"harness_ext/{path.as_posix()}" for path in sources("harness_ext")} - {"harness_ext/autoload.pth"}
    expected |= {f"harness_ext/task_configs/{path.as_posix()}" for path in sources("task_configs")}
    expected |= {path.as_posix() for path in sources("plugins")}
    expected |= {"harness_ext_autoload.pth"}
    assert {name for name in names(wheel) if ".dist-info/" not in name} == expected


def test_no_file_of_the_wheel_is_larger_than_16_mb(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        assert [entry.filename for entry in opened.infolist() if entry.file_size > 16_000_000] == []


def test_the_sdist_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    sdist = build("sdist", ROOT, tmp_path / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    again = build("wheel", source, tmp_path / "wheel")
    record = next(name for name in names(wheel) if name.endswith("/RECORD"))
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as other:
        assert one.read(record).decode().splitlines() == other.read(record).decode().splitlines()


def test_an_install_gives_the_model_the_tasks_and_the_plugins(installed: tuple[str, Environment], facts: dict[str, Any]) -> None:
    kind, environment = installed
    assert facts["class"] == "<class 'harness_ext.host.model.PrunedHFLM'>"
    assert facts["hf"]
    assert not facts["torch at registration"]
    assert {"icl", "icl_linear", "icl_nn", "icl_tree"} <= set(facts["tasks"])
    assert facts["broken"] == []
    assert {"random", "magnitude", "wanda", "sparsegpt"} <= set(facts["pruners"])
    assert {"self", "file", "hub"} <= set(facts["calibrations"])
    assert facts["version"] == metadata.version("lm-eval-pruned")
    home = environment.site if kind == "wheel" else ROOT
    for path in (facts["file"], facts["lab"], *facts["task folders"]):
        assert Path(path).resolve().is_relative_to(home.resolve())
        assert Path(path).exists()


def test_an_install_exposes_no_other_top_level_name(installed: tuple[str, Environment], facts: dict[str, Any]) -> None:
    assert facts["importable"] == []


def test_start_up_prints_nothing_and_takes_less_than_2_ms(installed: tuple[str, Environment]) -> None:
    _, environment = installed
    quiet = environment.run("python", "-c", "pass")
    assert (quiet.stdout, quiet.stderr) == ("", "")
    assert start_up_seconds(environment.python, environment.site) < 0.002


def test_nothing_is_installed_that_an_extra_brings(installed: tuple[str, Environment]) -> None:
    """Else the next tests would not show that the two main commands do without."""
    code = "import json; from importlib.util import find_spec; print(json.dumps([name for name in {!r} if find_spec(name)]))"
    assert installed[1].json(code.format(["matplotlib", "peft", "pytest", "ray"])) == []


def test_without_an_extra_a_model_is_pruned_and_a_report_says_what_it_needs(installed: tuple[str, Environment], tmp_path: Path) -> None:
    kind, environment = installed
    if kind == "wheel":
        arguments = ("--pretrained", "lab-xs", "--pruner", "magnitude", "--sparsity", "0.5", "--out", tmp_path / "out")
        environment.run("harness-ext", "prune", *arguments)
        assert list((tmp_path / "out").glob("*.safetensors"))
    ran = environment.run("harness-ext", "report", tmp_path, check=False)
    assert ran.returncode == 1
    assert ran.stderr.splitlines() == [
        "MissingExtraError: harness-ext report needs matplotlib, which is not installed: pip install 'lm-eval-pruned[report]'"
    ]


def test_uninstalling_leaves_nothing_behind(installed: tuple[str, Environment]) -> None:
    """Runs last on these environments."""
    _, environment = installed
    assert len(environment.files()) > len(environment.before)
    environment.run("python", "-c", "import harness_ext.host.registration, harness_ext_lab")  # leaves compiled files
    environment.pip("uninstall", "--yes", "lm-eval-pruned")
    assert environment.files() == environment.before


def evaluate(environment: Environment, output: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return environment.run(
        "lm_eval", "--model", "pruned-hf", "--tasks", "icl_linear", "--device", "cpu", "--output_path", output, *arguments, check=False
    )


def test_stock_lm_eval_prunes_with_a_third_party_plugin_beside_broken_ones(crowded: Environment, tmp_path: Path) -> None:
    ran = evaluate(crowded, tmp_path, "--model_args", "pruner=first-columns,sparsity=0.5", "--metadata", '{"icl_items": 8}')
    assert ran.returncode == 0, ran.stderr
    assert "icl_linear" in ran.stdout
    assert "Loading weights" in ran.stderr  # what the tests of errors look for is there when all is well
    (results,) = tmp_path.rglob("results_*.json")
    record = json.loads(results.read_text(encoding="utf-8"))
    assert record["results"]["icl_linear"]["sample_len"] == 8
    pruning = record["config"]["pruning"]
    assert pruning["plugin"] == {"distribution": "harness-ext-first-columns", "version": "1.2", "module": "harness_ext_first_columns"}
    assert pruning["achieved_sparsity"] == pytest.approx(0.5, abs=1e-4)


def test_harness_ext_lists_what_loaded_and_why_the_rest_did_not(crowded: Environment) -> None:
    table = crowded.run("harness-ext", "plugins").stdout
    for text in ("harness-ext-first-columns 1.2", "harness-ext-broken 0.2", "No module named 'harness_ext_of_long_ago'", "lm-eval-pruned"):
        assert text in table
    listed = json.loads(crowded.run("harness-ext", "plugins", "--json").stdout)
    loaded = {(plugin["distribution"], plugin["version"]): plugin["pruners"] for plugin in listed["plugins"]}
    assert loaded["harness-ext-first-columns", "1.2"] == ["first-columns"]
    assert loaded["harness-ext-taken", "0.5"] == ["harness-ext-taken-second"]
    reasons = {(plugin["distribution"], plugin["version"]): plugin["reason"] for plugin in listed["not loaded"]}
    assert reasons.keys() == {
        ("harness-ext-broken", "0.2"), ("harness-ext-hookless", "0.3"), ("harness-ext-misspelt", "0.4"), ("harness-ext-taken", "0.5"),
    }  # fmt: skip
    assert "ModuleNotFoundError: No module named 'harness_ext_of_long_ago'" in reasons["harness-ext-broken", "0.2"]
    assert "no hook" in reasons["harness-ext-hookless", "0.3"]
    assert "Did you mean 'register_pruners'?" in reasons["harness-ext-misspelt", "0.4"]
    assert f"'wanda' is already taken by lm-eval-pruned {metadata.version('lm-eval-pruned')}" in reasons["harness-ext-taken", "0.5"]


def test_stock_lm_eval_lists_and_validates_our_tasks(crowded: Environment) -> None:
    listed = set(re.findall(r"^\|\s*(\S+)\s*\|", crowded.run("lm_eval", "ls", "tasks").stdout, re.MULTILINE))
    assert {"icl", "icl_linear", "icl_nn", "icl_tree", "icl_linear_k4", "arc_easy"} <= listed
    assert "All tasks found and valid" in crowded.run("lm_eval", "validate", "--tasks", "icl,icl_linear_k4").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--model_args", "pruner=first-colums,sparsity=0.5"],
            r"UnknownNameError: no pruner named 'first-colums'\. Did you mean 'first-columns'\? Available: .*first-columns, .*wanda, width"
            r"\. Not installed: .*\. Not loaded: harness-ext-broken 0\.2 .*harness_ext_of_long_ago.*; harness-ext-hookless 0\.3 .*",
        ),
        (["--model_args", "pruner=wanda,sparsty=0.5"], r"BadOptionError: no argument 'sparsty'\. Did you mean 'sparsity'\?"),
        (["--model_args", "sparsity=0.5", "--metadata", '{"icl_itms": 8}'], r"BadOptionError: .*'icl_itms'.*Did you mean 'icl_items'\?.*"),
    ],
    ids=["pruner", "argument", "task option"],
)
def test_an_error_of_the_user_is_one_line_before_any_weight_is_loaded(
    crowded: Environment, tmp_path: Path, arguments: list[str], message: str
) -> None:
    ran = evaluate(crowded, tmp_path, *arguments)
    assert ran.returncode == 1
    lines = ran.stderr.splitlines()
    assert re.fullmatch(message, lines[-1])
    # Above it there are only the lines of lm-eval's log, which begin with the time.
    assert all(re.match(r"\d{4}-\d\d-\d\d:\d\d:\d\d:\d\d |\s", line) for line in lines[:-1]), ran.stderr
    assert "Traceback" not in ran.stderr
    assert "Loading weights" not in ran.stderr
    assert not list(tmp_path.rglob("results_*.json"))


EXTRAS = metadata.metadata("lm-eval-pruned").get_all("Provides-Extra") or []
APART = {name: ROOT / "plugins" / f"harness_ext_{name}" / "constraints.txt" for name in ("sparseml", "llmcompressor")}


def requirements(python: str, extras: Iterable[str]) -> list[Requirement]:
    """What our distribution and some of its extras require of others on a Python."""
    found = [Requirement(text) for text in metadata.requires("lm-eval-pruned") or []]
    environments = [{"python_version": python, "extra": extra} for extra in ("", *extras)]
    wanted = [one for one in found if one.marker is None or any(one.marker.evaluate(environment) for environment in environments)]
    return [requirement for requirement in wanted if requirement.name != "lm-eval-pruned"]


def pins(python: str, file: Path = ROOT / "constraints.txt") -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line)
            if pin.marker is None or pin.marker.evaluate({"python_version": python, "python_full_version": f"{python}.0"}):
                assert [specifier.operator for specifier in pin.specifier] == ["=="], line
                found.setdefault(canonical(pin.name), []).append(next(iter(pin.specifier)).version)
    return found


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("python", PYTHONS)
def test_every_direct_dependency_has_one_pin_that_it_allows(python: str) -> None:
    check_pins(pins(python), requirements(python, set(EXTRAS) - APART.keys()))


@pytest.mark.parametrize(("extra", "python"), [("sparseml", "3.10"), ("sparseml", "3.11"), ("llmcompressor", "3.11")])
def test_a_library_with_constraints_of_its_own_has_pins_for_itself_and_what_we_require_and_pytest(extra: str, python: str) -> None:
    check_pins(pins(python, APART[extra]), [*requirements(python, [extra]), Requirement("pytest")])


def check_pins(pinned: dict[str, list[str]], required: list[Requirement]) -> None:
    for requirement in required:
        (version,) = pinned[canonical(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement}: {version}"
    assert all(len(versions) == 1 for versions in pinned.values())


def test_the_tests_run_on_a_newer_numpy_than_sparseml_takes() -> None:
    for python in PYTHONS:
        assert pins(python)["numpy"][0].startswith("2.")
        assert not {"sparseml", "onnx"} & pins(python).keys()
    assert pins("3.11", APART["sparseml"])["numpy"] == ["1.26.4"]


def test_torch_and_the_host_are_pinned_to_the_tested_release() -> None:
    for pinned in (*map(pins, PYTHONS), *(pins("3.11", file) for file in APART.values())):
        assert pinned["torch"] == ["2.13.0"]
        assert pinned["lm-eval"] == ["0.4.13"]
