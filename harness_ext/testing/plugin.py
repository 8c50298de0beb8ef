"""The pytest plugin. With ``pytest --task-configs DIR``, each task YAML is a file of checks. Otherwise, it does nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness_ext.errors import BadOptionError, MissingExtraError
from harness_ext.extras import require_extra

if TYPE_CHECKING:
    from harness_ext.testing.built import Built
    from harness_ext.testing.findings import Finding

FOLDERS = pytest.StashKey[list[Path]]()
LIMIT = 256
SCORED = ("build", "target", "choices")  # checks whose findings make all scores wrong


class Found(Exception):
    """A check has findings."""

    def __init__(self, findings: list[Finding]):
        super().__init__("\n".join(map(str, findings)))


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("task-configs", "lm-eval task definitions (lm-eval-pruned)")
    group.addoption(
        "--task-configs", metavar="DIR", action="append", default=[], help="check the lm-eval task YAMLs below DIR; may be repeated"
    )
    group.addoption("--task-static", action="store_true", help="only the checks that need no data")
    group.addoption("--task-metadata", metavar="JSON", default="{}", help="options of the tasks, as for lm_eval --metadata")
    group.addoption(
        "--task-tokenizer", metavar="PATH", help="a tokenizer of transformers for the checks of choices and lengths; default: words"
    )
    group.addoption("--task-context-length", metavar="N", type=int, help="prompts with their answers must fit N tokens")
    group.addoption(
        "--task-limit", metavar="N", type=int, default=LIMIT, help=f"documents of each task that the guesser is asked; default {LIMIT}"
    )


def pytest_configure(config: pytest.Config) -> None:
    folders = [Path(folder).resolve() for folder in config.getoption("--task-configs")]
    config.stash[FOLDERS] = folders
    if not folders:
        return
    for folder in folders:
        if not folder.is_dir():
            raise pytest.UsageError(f"--task-configs {folder}: no such folder")
    try:
        require_extra("testing", "--task-configs")
    except MissingExtraError as error:
        raise pytest.UsageError(str(error)) from error
    _metadata(config)
    # Without paths on the command line, only these folders are checked; the tests of the project do not run.
    asked = config.args if config.args_source is pytest.Config.ArgsSource.ARGS else []
    config.args = [*asked, *map(str, folders)]


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if file_path.suffix != ".yaml" or not any(folder in file_path.parents for folder in parent.config.stash[FOLDERS]):
        return None
    collected: pytest.Collector = TaskFile.from_parent(parent, path=file_path)
    return collected


class TaskFile(pytest.File):
    """One YAML: a task, a group, or a part that other files include."""

    def __init__(self, **others: Any):
        super().__init__(**others)
        self.broken: set[str] = set()
        self.task_name: object = None

    def collect(self) -> Iterator[pytest.Item]:
        from harness_ext.testing.documents import DOCUMENT_CHECKS, check_one
        from harness_ext.testing.pipeline import check_oracle, check_random
        from harness_ext.testing.static import STATIC_CHECKS

        for check in STATIC_CHECKS:
            yield Check.from_parent(self, name=check, run=lambda check=check: [f for f in self.static if f.check == check])
        if self.is_task and not self.config.getoption("--task-static"):
            for check in DOCUMENT_CHECKS:
                before = () if check == "build" else ("build",)
                yield DocumentCheck.from_parent(self, name=check, run=lambda check=check: check_one(check, self.built), blamed=before)
            limit = self.config.getoption("--task-limit")
            yield DocumentCheck.from_parent(self, name="oracle", run=lambda: check_oracle(self.built), blamed=SCORED)
            yield DocumentCheck.from_parent(
                self, name="random", run=lambda: check_random(self.built, limit=limit), blamed=(*SCORED, "oracle")
            )

    @cached_property
    def static(self) -> list[Finding]:
        from harness_ext.testing.static import check_static

        return check_static(self.path, names=_names(tuple(_folders(self.config))))

    @cached_property
    def is_task(self) -> bool:
        from harness_ext.testing.definition import UnreadableError, read, whole
        from harness_ext.testing.static import is_group, is_part

        try:
            config = whole(read(self.path))
        except UnreadableError:
            return False
        self.task_name = config.get("task")
        return not is_group(config) and not is_part(config)

    @cached_property
    def built(self) -> Built:
        from harness_ext.testing.built import Built

        tokenizer = self.config.getoption("--task-tokenizer")
        given: dict[str, Any] = {"tokenize": _tokenizer(tokenizer)} if tokenizer else {}
        length = self.config.getoption("--task-context-length")
        return Built(self.path, str(self.task_name), _folders(self.config), _metadata(self.config), longest=length, **given)


class Check(pytest.Item):
    """One check of one file."""

    def __init__(self, *, run: Callable[[], list[Finding]], blamed: Sequence[str] = (), **others: Any):
        super().__init__(**others)
        self.run = run
        self.blamed = set(blamed)

    def runtest(self) -> None:
        if findings := self.run():
            raise Found(findings)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        return str(excinfo.value) if isinstance(excinfo.value, Found) else super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, f"{self.path.name}: {self.name}"


class DocumentCheck(Check):
    """A check that builds the task. It is skipped if an earlier check explains why it would fail, or if it does not apply."""

    def runtest(self) -> None:
        from harness_ext.testing.built import NeedsDownloadError
        from harness_ext.testing.findings import NotCheckedError

        file: Any = self.parent
        if file.static:
            pytest.skip(f"the YAML is wrong: {file.static[0].check}")
        if reason := file.broken & self.blamed:
            pytest.skip(f"the documents are wrong: {', '.join(sorted(reason))}")
        try:
            super().runtest()
        except (NeedsDownloadError, NotCheckedError) as error:
            pytest.skip(str(error))
        except Found:
            file.broken.add(self.name)
            raise


def _folders(config: pytest.Config) -> list[Path]:
    return config.stash[FOLDERS]


@lru_cache(maxsize=1)
def _names(folders: tuple[Path, ...]) -> dict[str, Path]:
    from harness_ext.testing.static import names_below

    return names_below(folders)


def _metadata(config: pytest.Config) -> dict[str, Any]:
    from harness_ext.host.arguments import parse_mapping

    try:
        return parse_mapping("--task-metadata", config.getoption("--task-metadata"))
    except BadOptionError as error:
        raise pytest.UsageError(str(error)) from error


@lru_cache(maxsize=1)
def _tokenizer(path: str) -> Callable[[str], list[int]]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    return lambda text: list(tokenizer(text, add_special_tokens=False)["input_ids"])


# --- fixtures


@pytest.fixture(scope="session")
def tiny_lm() -> Any:
    """A tiny causal language model for lm-eval: one layer, random weights and a byte tokenizer, on the CPU."""
    from harness_ext.testing.models import make_tiny_lm

    return make_tiny_lm()


@pytest.fixture
def oracle_lm() -> Any:
    """``oracle_lm(task)`` is a model for lm-eval that knows all answers of the task."""
    from harness_ext.testing.models import OracleLM

    return OracleLM


@pytest.fixture
def random_lm() -> Any:
    """``random_lm(task, seed=0)`` is a model for lm-eval that guesses."""
    from harness_ext.testing.models import RandomLM

    return RandomLM
