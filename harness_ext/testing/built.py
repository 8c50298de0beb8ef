"""A task as lm-eval builds it, and its documents as a model would see them: rendered once, for all checks."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from harness_ext.testing.definition import files_below

Problem = tuple[str, int | None, str]  # key, document and message


class NeedsDownloadError(Exception):
    """The documents are on a hub that cannot be reached."""


def words(text: str) -> list[str]:
    """The tokens that are assumed where no tokenizer is given: words, and marks one by one."""
    return re.findall(r"\w+|[^\w\s]", text)


@dataclass(frozen=True)
class Rendered:
    """One document as a model would see it.

    Attributes:
        doc: The document itself.
        prompt: The text before the answer, without few-shot examples; of a task whose choices are the prompts, all of them.
        choices: What is ranked, or nothing.
        target: As ``doc_to_target`` gives it.
        answers: The right answers as texts, the one that is scored first.
        prompts_ranked: The choices are the prompts, and the target is the text after each of them.
    """

    doc: Mapping[str, Any]
    prompt: str
    choices: tuple[str, ...]
    target: Any
    answers: tuple[str, ...]
    prompts_ranked: bool = False

    @property
    def chance(self) -> float:
        """How often a guess among the choices is right."""
        right = 1 if self.prompts_ranked else len(set(self.answers) & set(self.choices)) or 1
        return right / len(self.choices)


@dataclass
class Built:
    """A task as lm-eval builds it, and how to build it again.

    Attributes:
        file: Its YAML.
        name: Its name.
        folders: Where the YAML files that it may refer to are.
        metadata: As for ``lm_eval --metadata``.
        tokenize: Gives the tokens of a text.
        longest: The tokens that a prompt with its answer may have; None is any number.
    """

    file: Path
    name: str
    folders: Sequence[Path]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    tokenize: Callable[[str], Sequence[Any]] = words
    longest: int | None = None
    _needs: NeedsDownloadError | None = field(default=None, init=False, repr=False)

    def build(self, **metadata: Any) -> Any:
        """The task, built anew.

        Raises:
            NeedsDownloadError: its data cannot be reached.
        """
        if self._needs is not None:  # asking a hub once takes long enough
            raise self._needs
        try:
            return _manager(self.folders, {**self.metadata, **metadata}).load([self.name])["tasks"][self.name]
        except Exception as error:
            if _is_network(error):
                self._needs = NeedsDownloadError(f"its data cannot be had without a network: {first_line(error)}")
                raise self._needs from error
            raise

    @cached_property
    def task(self) -> Any:
        return self.build()

    @cached_property
    def docs(self) -> list[dict[str, Any]]:
        return [dict(doc) for doc in self.task.eval_docs]

    @property
    def declared(self) -> Mapping[str, Any]:
        return self.task.config.metadata or {}

    @property
    def rendered(self) -> list[Rendered]:
        """The documents that can be rendered; where ``problems`` is empty, all of them."""
        return self._rendered[0]

    @property
    def problems(self) -> list[Problem]:
        """The first document that each of the task's templates and functions fails on."""
        return self._rendered[1]

    @cached_property
    def _rendered(self) -> tuple[list[Rendered], list[Problem]]:
        rendered: list[Rendered] = []
        problems: dict[str, Problem] = {}
        for number, doc in enumerate(self.docs):
            key = "doc_to_text"
            try:
                text = self.task.doc_to_text(doc)
                key = "doc_to_choice"
                choices = choices_of(self.task, doc)
                key = "doc_to_target"
                target = self.task.doc_to_target(doc)
                answers = _answers(target, choices)
            except Exception as error:
                problems.setdefault(key, (key, number, f"fails: {type(error).__name__}: {first_line(error)}"))
                continue
            ranked = isinstance(text, int)
            rendered.append(Rendered(doc, "\n".join(choices) if ranked else str(text), tuple(choices), target, tuple(answers), ranked))
        return rendered, list(problems.values())


def choices_of(task: Any, doc: Mapping[str, Any]) -> list[str]:
    """The choices that are ranked, or none: those of a multiple-choice task, or of a task that writes and ranks (``FactTask``)."""
    if task.config.doc_to_choice is not None:
        return [str(choice) for choice in task.doc_to_choice(doc)]
    found = doc.get("choices") if _ranks_besides(task) else None
    return list(found) if isinstance(found, (list, tuple)) else []


def right_answers(task: Any, doc: Mapping[str, Any]) -> list[str]:
    """The right answers as texts, the one that is scored first."""
    return _answers(task.doc_to_target(doc), choices_of(task, doc))


def first_line(error: BaseException) -> str:
    """The first line of what an error says."""
    return (str(error).strip().splitlines() or [""])[0][:300]


def _answers(target: Any, choices: Sequence[str]) -> list[str]:
    answers = []
    for one in target if isinstance(target, (list, tuple)) else [target]:
        number = isinstance(one, int) and not isinstance(one, bool) and bool(choices)
        answers.append(choices[one] if number and 0 <= one < len(choices) else str(one))
    return answers or [""]


def _ranks_besides(task: Any) -> bool:
    from harness_ext.tasks.qa import FactTask

    return isinstance(task, FactTask)


_managers: dict[object, Any] = {}


def _manager(folders: Sequence[Path], metadata: Mapping[str, Any]) -> Any:
    """lm-eval's index of the folders as their files are now: it takes longer than a task, and each ``load`` of it builds anew."""
    from lm_eval.tasks import TaskManager

    state = tuple((str(file), file.stat().st_mtime_ns) for file in files_below(folders))
    key = (tuple(map(str, folders)), state, repr(sorted(metadata.items())))
    if key not in _managers:
        if len(_managers) >= 8:
            _managers.clear()
        _managers[key] = TaskManager(include_path=[str(folder) for folder in folders], include_defaults=False, metadata=dict(metadata))
    return _managers[key]


# By name: the libraries that raise them differ by version and need not be installed. Theirs are not Python's own ConnectionError.
_NETWORK = {"ConnectionError", "ConnectError", "Timeout", "HfHubHTTPError", "LocalEntryNotFoundError", "DatasetNotFoundError", "URLError"}


def _is_network(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, is that something could not be reached."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, TimeoutError) or _NETWORK & {kind.__name__ for kind in type(error).__mro__}:
            return True
        error = error.__cause__ or error.__context__
    return False
