"""What ``pyproject.toml`` requires is what the code imports: always, or in the rooms that an extra is for."""

from __future__ import annotations

import ast
import re
import sys
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
from environment import ROOT
from packaging.requirements import Requirement

from harness_ext.extras import MODULES

SOURCES = [path for top in ("harness_ext", "plugins") for path in sorted((ROOT / top).rglob("*.py"))]
EXTRAS = {  # where the libraries of an extra may be imported
    "gguf": ["harness_ext/weights/gguf.py", "plugins/harness_ext_smollm2"],
    "llmcompressor": ["plugins/harness_ext_llmcompressor"],
    "peft": ["harness_ext/host/peft.py"],
    "ray": ["harness_ext/sweep/ray_engine.py"],
    "report": ["harness_ext/report", "harness_ext/statistics"],
    "sparseml": ["plugins/harness_ext_sparseml"],
    "sweep": ["harness_ext/sweep"],
    "testing": ["harness_ext/testing"],
}
FOR_WORK_ON_THE_PROJECT = {"docs", "test"}
IMPORTED_BY_OTHERS = {
    "gguf": {"gguf"},  # by transformers
    "ray": {"pydantic", "ruamel-yaml"},  # by the rest of a sweep
    "sparseml": {"compressed-tensors", "pyarrow", "setuptools", "sparsezoo"},  # by SparseML, which would take too new ones
}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def required(extra: str = "") -> frozenset[str]:
    """The distributions that are required always, or by one extra alone."""
    requirements = map(Requirement, metadata.requires("lm-eval-pruned") or [])
    names = {canonical(requirement.name) for requirement in requirements if extra_of(requirement) == extra}
    return frozenset(names - {"lm-eval-pruned"})  # an extra may bring another one


def extra_of(requirement: Requirement) -> str:
    return next(iter(re.findall(r"extra == ['\"]([\w-]+)['\"]", str(requirement.marker or ""))), "")


@cache
def imported(path: Path) -> frozenset[str]:
    """The distributions of other people that a file imports anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module or "")
    tops = {name.partition(".")[0] for name in names} - sys.stdlib_module_names
    return frozenset(distribution_of(top) for top in tops if not top.startswith("harness_ext"))


DISTRIBUTIONS = metadata.packages_distributions()


def distribution_of(module: str) -> str:
    """By its own name where it is not installed, as SparseML is not."""
    return canonical(DISTRIBUTIONS.get(module, [module])[0])


def extras_of(path: Path) -> list[str]:
    name = path.relative_to(ROOT).as_posix()
    return [extra for extra, places in EXTRAS.items() if any(name == place or name.startswith(f"{place}/") for place in places)]


def test_what_is_imported_is_required() -> None:
    allowed = {path: required().union(*map(required, extras_of(path))) for path in SOURCES}
    assert {str(path): missing for path in SOURCES if (missing := imported(path) - allowed[path])} == {}


def test_what_is_always_required_is_imported_where_no_extra_is_asked_for() -> None:
    assert required() - frozenset().union(*(imported(path) for path in SOURCES if not extras_of(path))) == set()


@pytest.mark.parametrize("extra", EXTRAS)
def test_what_an_extra_requires_is_imported_in_its_rooms(extra: str) -> None:
    wanted = frozenset().union(*(imported(path) for path in SOURCES if extra in extras_of(path)))
    assert required(extra) - IMPORTED_BY_OTHERS.get(extra, set()) <= wanted


def test_every_extra_is_known_here() -> None:
    declared = set(metadata.metadata("lm-eval-pruned").get_all("Provides-Extra") or [])
    assert declared == EXTRAS.keys() | FOR_WORK_ON_THE_PROJECT


@pytest.mark.parametrize("extra", MODULES)
def test_the_error_about_a_missing_extra_knows_its_modules(extra: str) -> None:
    assert {distribution_of(module.partition(".")[0]) for module in MODULES[extra]} == required(extra)
