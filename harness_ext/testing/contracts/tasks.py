"""The rules of task folders, as tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from harness_ext.plugins import Plugins
from harness_ext.testing.built import Built, NeedsDownloadError
from harness_ext.testing.contracts.given import fail
from harness_ext.testing.definition import UnreadableError, read, whole
from harness_ext.testing.documents import check_documents
from harness_ext.testing.findings import Finding, NotCheckedError
from harness_ext.testing.pipeline import check_oracle, check_random
from harness_ext.testing.static import check_static, is_group, is_part, names_below


class TaskFolderContract:
    """Tests of a folder of lm-eval task YAMLs. A class whose name begins with ``Test`` inherits them:

        class TestMine(TaskFolderContract):
            folder = Path(my_package.__file__).parent / "tasks"

    The tests are the checks of ``pytest --task-configs``, and a check that a plugin registers the folder.
    """

    folder: Path | str = ""
    metadata: Mapping[str, Any] = {}
    """Task options, as for ``lm_eval --metadata``."""
    context_length: int | None = None
    """Largest number of words in a prompt with its answer."""
    limit: int = 256
    """Number of documents of each task for the model that guesses."""
    registered: bool = True
    """Whether a plugin must register the folder."""

    _built: ClassVar[dict[tuple[Path, str], list[Built]]] = {}

    # --- the rules

    def test_a_plugin_registers_the_folder(self) -> None:
        if not self.registered:
            return
        plugins = Plugins()
        folders = [path.resolve() for path, _ in plugins.task_folders]
        if not any(self._folder.is_relative_to(folder) for folder in folders):
            broken = f" Not loaded: {'; '.join(map(str, plugins.broken))}" if plugins.broken else ""
            fail(f"{self._folder}: no plugin registers it: is there an entry point of the group harness_ext, and is it installed?{broken}")

    def test_its_definitions_are_sound(self) -> None:
        names = names_below([self._folder])
        self._tell([finding for file in self._files for finding in check_static(file, names=names)])
        if not self._tasks:
            fail(f"{self._folder}: there is no task in it")

    def test_its_documents_are_sound(self) -> None:
        self._each(check_documents)

    def test_a_model_that_knows_every_answer_scores_one(self) -> None:
        self._each(check_oracle)

    def test_a_model_that_guesses_scores_chance(self) -> None:
        self._each(lambda built: check_random(built, limit=self.limit))

    # --- how they are tested

    @cached_property
    def _folder(self) -> Path:
        folder = Path(self.folder).resolve()
        if not str(self.folder) or not folder.is_dir():
            fail(f"folder = {str(self.folder)!r}: no such folder")
        return folder

    @cached_property
    def _files(self) -> list[Path]:
        return sorted(self._folder.rglob("*.yaml"))

    @cached_property
    def _tasks(self) -> list[Built]:
        """The tasks, built once for all tests. Pytest makes an instance of the class for each test."""
        key = self._folder, repr((sorted(self.metadata.items()), self.context_length))
        if key not in self._built:
            self._built[key] = [
                Built(file, str(config["task"]), [self._folder], self.metadata, longest=self.context_length)
                for file, config in _definitions(self._files)
            ]
        return self._built[key]

    def _each(self, check: Callable[[Built], list[Finding]]) -> None:
        findings = []
        for built in self._tasks:
            try:
                findings += check(built)
            except NotCheckedError:  # it has no choices to guess among, for example
                continue
            except NeedsDownloadError as error:
                fail(f"{built.file}: {error}")
        self._tell(findings)

    def _tell(self, findings: list[Finding]) -> None:
        if findings:
            fail("\n".join(map(str, findings)))


def _definitions(files: list[Path]) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    for file in files:
        try:
            config = whole(read(file))
        except UnreadableError:  # the static checks say why
            continue
        if "task" in config and not is_group(config) and not is_part(config):
            yield file, config
