"""Libraries that are not installed: told in one line, with what to type, before any work is done."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pydantic  # noqa: F401 - typer imports it: it gets no stand-in
import pytest
from typer.testing import CliRunner

from harness_ext import BadOptionError
from harness_ext.commands.cli import app
from harness_ext.errors import MissingExtraError
from harness_ext.extras import MODULES, require_extra

EVERY_MODULE = [(extra, module) for extra, modules in MODULES.items() for module in modules]


@pytest.fixture
def hide(monkeypatch: pytest.MonkeyPatch):
    """Hides one module of an extra; stand-ins for the others spare us to import them."""

    def hide(extra: str, hidden: str) -> None:
        for module in MODULES[extra]:
            monkeypatch.setitem(sys.modules, module, None if module == hidden else sys.modules.get(module, types.ModuleType(module)))

    return hide


@pytest.mark.parametrize(("extra", "module"), EVERY_MODULE)
def test_a_missing_module_is_told_with_the_command_that_installs_it(extra: str, module: str, hide) -> None:
    hide(extra, module)
    with pytest.raises(MissingExtraError) as caught:
        require_extra(extra, "--this")
    assert str(caught.value) == f"--this needs {module}, which is not installed: pip install 'lm-eval-pruned[{extra}]'"
    assert isinstance(caught.value, BadOptionError)
    assert isinstance(caught.value, ImportError)


@pytest.mark.parametrize(
    ("source", "reason"),
    [("raise ImportError('no libthing.so\\nin the path')", r"no libthing\.so in the path"), ("import of_long_ago", "'of_long_ago'")],
)
def test_a_module_that_does_not_import_is_told_with_the_reason(
    source: str, reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "a_library.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(MODULES, "demo", ("a_library",))
    with pytest.raises(MissingExtraError, match=rf"a_library, which cannot be imported \(.*{reason}\): pip install .*\[demo\]"):
        require_extra("demo", "--this")


def test_nothing_is_said_where_all_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODULES, "demo", ("json", "xml.etree"))
    require_extra("demo", "--this")


@pytest.mark.parametrize(("command", "module"), [*(("report", module) for module in MODULES["report"]), ("sweep", "ruamel.yaml")])
def test_a_command_says_it_before_it_reads(command: str, module: str, hide, tmp_path: Path) -> None:
    hide(command, module)
    arguments = {"report": [str(tmp_path / "absent")], "sweep": ["--config", str(tmp_path / "absent"), "--out", str(tmp_path / "out")]}
    ran = CliRunner().invoke(app, [command, *arguments[command]])
    assert ran.exit_code == 1
    assert ran.stderr.splitlines() == [
        f"MissingExtraError: harness-ext {command} needs {module}, which is not installed: pip install 'lm-eval-pruned[{command}]'"
    ]


def test_the_sweep_command_says_it_before_it_reads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ruamel.yaml", None)  # newer typers need pydantic themselves
    ran = CliRunner().invoke(app, ["sweep", "--config", str(tmp_path / "absent.yaml")])
    assert ran.exit_code == 1
    assert ran.stderr.splitlines() == [
        "MissingExtraError: harness-ext sweep needs ruamel.yaml, which is not installed: pip install 'lm-eval-pruned[sweep]'"
    ]


def test_an_adapter_says_it_before_it_is_looked_for(hide) -> None:
    from harness_ext.host.peft import check_adapter

    hide("peft", "peft")
    with pytest.raises(MissingExtraError, match=r"^peft='some/adapter' needs peft.*pip install 'lm-eval-pruned\[peft\]'"):
        check_adapter("some/adapter")
