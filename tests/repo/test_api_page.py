"""The page of the Python API has every public name, and the examples in the docstrings of these names run."""

from __future__ import annotations

import doctest
import inspect
import re
from collections import Counter
from types import ModuleType
from typing import Any

import pytest
from environment import ROOT

import harness_ext
import harness_ext.testing

PUBLIC = [(module, name) for module in (harness_ext, harness_ext.testing) for name in module.__all__]
HAVE_EXAMPLES = {"prune", "PrunedHFLM", "Sparsity", "find_blocks", "LayerShape", "Measured", "Pruner"}


def examples(name: str) -> list[doctest.DocTest]:
    found = doctest.DocTestFinder(recurse=True).find(getattr(harness_ext, name), f"harness_ext.{name}", globs={})
    return [test for test in found if test.examples]


def documented(value: Any) -> bool:
    return bool(value.__doc__) and not value.__doc__.startswith(f"{value.__name__}(")  # which dataclasses and tuples say of themselves


def test_the_page_of_the_api_has_every_public_name_once() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    on_page = Counter(re.findall(r"^::: (\S+)$", page, re.MULTILINE))
    assert on_page == Counter(f"{module.__name__}.{name}" for module, name in PUBLIC)


@pytest.mark.parametrize(("module", "name"), [pytest.param(module, name, id=f"{module.__name__}.{name}") for module, name in PUBLIC])
def test_a_public_name_and_its_parameters_are_described(module: ModuleType, name: str) -> None:
    value = getattr(module, name)
    if not inspect.isclass(value) and not inspect.isfunction(value):
        return
    assert documented(value)
    text = inspect.getdoc(value) or ""
    if inspect.isfunction(value) and "Args:" in text:
        section = text.partition("Args:\n")[2].partition("\n\n")[0]
        assert re.findall(r"^    (\w+): ", section, re.MULTILINE) == list(inspect.signature(value).parameters)


@pytest.mark.parametrize("name", sorted({*HAVE_EXAMPLES, *(name for name in harness_ext.__all__ if examples(name))}))
def test_the_examples_in_a_docstring_run(name: str) -> None:
    tests, report = examples(name), ""
    assert tests, f"{name} has no example"

    def note(text: str) -> None:
        nonlocal report
        report += text

    for test in tests:
        assert doctest.DocTestRunner(verbose=False).run(test, out=note).failed == 0, report
