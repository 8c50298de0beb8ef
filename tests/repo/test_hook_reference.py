"""docs/hooks.md is what the hooks say, and each hook has words, an example that works, and a test."""

from __future__ import annotations

import sys

import pytest
from environment import ROOT
from plugin_sources import InstallPlugin

from harness_ext.plugins import Plugins

sys.path.insert(0, str(ROOT / "scripts"))

import write_hook_reference as reference

HOOKS = {hook.name: hook for hook in reference.hooks()}
REGISTERS = {  # where a look at the plugins shows what an example has registered
    "register_pruners": lambda plugins: plugins.pruners.items,
    "register_calibrations": lambda plugins: plugins.calibrations.items,
    "register_allocations": lambda plugins: plugins.allocations.items,
    "register_models": lambda plugins: plugins.models.items,
    "register_tasks": lambda plugins: {str(folder): (folder, origin) for folder, origin in plugins.task_folders},
}


def gaps(hook):
    """What a hook lacks."""
    words = {"docs": hook.summary and all(hook.parameters.values()) and hook.parameters, "an example": hook.example, "a test": hook.test}
    return [what for what, there in words.items() if not there]


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_has_docs_an_example_and_a_test(name):
    assert gaps(HOOKS[name]) == []


def test_a_hook_without_any_of_them_is_found():
    def register_nothing(register):
        pass

    assert gaps(reference.read("register_nothing", register_nothing)) == ["docs", "an example", "a test"]
    register_nothing.__doc__ = "Registers nothing.\n\n:param register: call it.\n"
    assert gaps(reference.read("register_nothing", register_nothing)) == ["an example", "a test"]
    register_nothing.__doc__ = "Registers nothing.\n\n:param register:\n\n.. code-block:: python\n\n    pass\n"
    assert gaps(reference.read("register_nothing", register_nothing)) == ["docs", "a test"]


@pytest.mark.parametrize("name", HOOKS)
def test_the_example_of_a_hook_is_a_plugin_that_registers_something(name, install_plugin: InstallPlugin):
    install_plugin("example", HOOKS[name].example)
    plugins = Plugins()
    assert plugins.broken == []
    registered = [item for item, origin in REGISTERS[name](plugins).values() if origin.distribution == "example"]
    assert len(registered) == 1


def test_the_page_is_what_the_script_writes():
    assert reference.PAGE.read_text(encoding="utf-8") == reference.page(), "run python scripts/write_hook_reference.py"


def test_the_page_shows_every_hook_with_its_example():
    page = reference.PAGE.read_text(encoding="utf-8")
    for name, hook in HOOKS.items():
        assert f"## {name}\n" in page
        assert f"```python\n{hook.example}\n```" in page
        assert f"Tested by `{hook.test}`." in page
