"""Fixtures that several test modules use."""

from __future__ import annotations

import functools
import gc
import itertools
import os
import shutil
import sys
from collections import defaultdict
from collections.abc import Generator, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from plugin_sources import InstallPlugin
from torch.utils import collect_env

from harness_ext.tasks.functions import FAMILIES, Function

_numbers = itertools.count()

if "PYTEST_XDIST_WORKER" in os.environ:  # several processes with several threads each would wait for one another
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keeps the garbage collector away from what is imported: to visit it again and again takes a tenth of the time of all tests."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says how many tests of each folder ran, and how long they took, in all processes together."""
    seconds: dict[str, float] = defaultdict(float)
    names: dict[str, set[str]] = defaultdict(set)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                tier = report.nodeid.partition("/test_")[0]
                seconds[tier] += report.duration
                names[tier].add(report.nodeid)
    for tier in sorted(names):
        terminalreporter.write_line(f"{tier}: {len(names[tier])} tests in {seconds[tier]:.0f} s")


@pytest.fixture(autouse=True)
def no_calibration_tokens_of_other_tests(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test begins with an empty cache of calibration tokens."""
    monkeypatch.setenv("HARNESS_EXT_CALIBRATION_CACHE", str(tmp_path_factory.getbasetemp() / f"calibration-{next(_numbers)}"))


@pytest.fixture(scope="session", autouse=True)
def what_is_installed_is_read_once() -> Iterator[None]:
    """Python reads and parses the files of all distributions whenever plugins are looked for, which is whenever a model is pruned."""
    found = [distribution for distribution in metadata.distributions() if isinstance(distribution, metadata.PathDistribution)]
    installed = {str(distribution._path): distribution for distribution in found}
    with pytest.MonkeyPatch.context() as patch:
        for name in ("metadata", "entry_points"):
            read = getattr(metadata.Distribution, name).fget
            read_once = functools.cache(lambda path, read=read: read(installed[path]))

            def of(distribution: metadata.PathDistribution, read: Any = read, read_once: Any = read_once) -> Any:
                path = str(distribution._path)
                return read_once(path) if path in installed else read(distribution)

            patch.setattr(metadata.PathDistribution, name, property(of), raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def nothing_is_flushed() -> Iterator[None]:
    """Each file is flushed to the disk when it is written, for a machine that loses its power. Tests need not wait for the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def the_machine_is_described_once() -> Iterator[None]:
    """lm-eval asks pip and the system after each of its runs, which takes most of a second in other processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collect_env, "get_pretty_env_info", functools.cache(collect_env.get_pretty_env_info))
        yield


@pytest.fixture
def install_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InstallPlugin:
    """Installs a third-party plugin for the length of a test: a module, and the metadata of a distribution that declares it.

    ``install_plugin(name, source, version="1.0")``; the module is called as the distribution is, with underscores.
    """
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)

    def install(name: str, source: str, version: str = "1.0") -> None:
        module = name.replace("-", "_")
        (folder / f"{module}.py").write_text(source, encoding="utf-8")
        info = folder / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[harness_ext]\n{name}-entry = {module}\n", encoding="utf-8")

    yield install
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and Path(str(sys.modules[name].__file__)).is_relative_to(folder):
            del sys.modules[name]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Function]:
    """Every function drawn so far; the last one is the one that labelled the points."""
    found: list[Function] = []

    def spy_on(family: type[Function]) -> type:
        class Spy:
            @staticmethod
            def draw(*arguments: object) -> Function:
                found.append(family.draw(*arguments))
                return found[-1]

        return Spy

    for name, family in list(FAMILIES.items()):
        monkeypatch.setitem(FAMILIES, name, spy_on(family))
    return found


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report of two models, one of them pruned as a whole and by its parts; not to be changed."""
    from report_folders import sweep_of_parts

    from harness_ext.report import report

    return report([sweep_of_parts(tmp_path_factory.mktemp("report") / "run")], resamples=200).page.parent


@pytest.fixture(scope="session")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep of two trials; not to be changed."""
    from sweeps import sweep

    out = tmp_path_factory.mktemp("sweep") / "out"
    assert sweep(out).done == 2
    return out


@pytest.fixture
def copy(done: Path, tmp_path: Path) -> Path:
    """The same to be changed."""
    return Path(shutil.copytree(done, tmp_path / "out"))
