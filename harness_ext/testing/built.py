"""A task as lm-eval builds it, and its documents as a model sees them. Documents are rendered once for all checks."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from harness_ext.testing.definition import files_below

Problem = tuple[str, str, int | None]  # key, message, and number of the document


class NeedsDownloadError(Exception):
    """The documents are on a hub that cannot be reached."""


def words(text: str) -> list[str]:
    """The tokens of a text if no tokenizer is given: words, and single punctuation marks."""
    return re.findall(r"\w+|[^\w\s]", text)


@dataclass(frozen=True)
class Rendered:
    """One document as a model sees it.

    Attributes:
        doc: The document.
        prompt: The text before the answer, without few-shot examples. If the choices are the prompts, all of them.
        choices: The ranked texts, if any.
        target: The result of ``doc_to_target``.
        answers: The right answers as texts. The first is the scored one.
        prompts_ranked: Whether the choices are the prompts, each followed by the target.
    """

    doc: Mapping[str, Any]
    prompt: str
    choices: tuple[str, ...]
    target: Any
    answers: tuple[str, ...]
    prompts_ranked: bool = False

    @property
    def chance(self) -> float:
        """Probability that a guess among the choices is right."""
        right = 1 if self.prompts_ranked else len(set(self.answers) & set(self.choices)) or 1
        return right / len(self.choices)


@dataclass
class Built:
    """A task as lm-eval builds it. It can be built again.

    Attributes:
        file: YAML file of the task.
        name: Name of the task.
        folders: Folders with the YAML files that the task may refer to.
        metadata: Task options, as for ``lm_eval --metadata``.
        tokenize: Splits a text into tokens.
        longest: Largest number of tokens of a prompt with its answer; None for no limit.
    """

    file: Path
    name: str
    folders: Sequence[Path]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    tokenize: Callable[[str], Sequence[Any]] = words
    longest: int | None = None
    _needs: NeedsDownloadError | None = field(default=None, init=False, repr=False)

    def build(self, **metadata: Any) -> Any:
        """Builds the task again.

        Raises:
            NeedsDownloadError: the data cannot be reached.
        """
        if self._needs is not None:  # a second request to the hub would also take long
            raise self._needs
        try:
            return _manager(self.folders, {**self.metadata, **metadata}).load([self.name])["tasks"][self.name]
        except Exception as error:
            if _is_network(error):
                self._needs = NeedsDownloadError(f"its data cannot be loaded without a network: {first_line(error)}")
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
        """The rendered documents. If ``problems`` is empty, these are all documents."""
        return self._rendered[0]

    @property
    def problems(self) -> list[Problem]:
        """For each template or function that fails, the first document on which it fails."""
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
                problems.setdefault(key, (key, f"fails: {type(error).__name__}: {first_line(error)}", number))
                continue
            ranked = isinstance(text, int)
            rendered.append(Rendered(doc, "\n".join(choices) if ranked else str(text), tuple(choices), target, tuple(answers), ranked))
        return rendered, list(problems.values())


def choices_of(task: Any, doc: Mapping[str, Any]) -> list[str]:
    """The ranked choices of a multiple-choice task or a ``FactTask``. Other tasks have none."""
    if task.config.doc_to_choice is not None:
        return [str(choice) for choice in task.doc_to_choice(doc)]
    choices = doc.get("choices") if _ranks_besides(task) else None
    return list(choices) if isinstance(choices, (list, tuple)) else []


def right_answers(task: Any, doc: Mapping[str, Any]) -> list[str]:
    """The right answers as texts. The first is the scored one."""
    return _answers(task.doc_to_target(doc), choices_of(task, doc))


def first_line(error: BaseException) -> str:
    """The first line of the message of an error."""
    return (str(error).strip().splitlines() or [""])[0][:300]


def _answers(target: Any, choices: Sequence[str]) -> list[str]:
    answers = []
    for answer in target if isinstance(target, (list, tuple)) else [target]:
        number = isinstance(answer, int) and not isinstance(answer, bool) and bool(choices)
        answers.append(choices[answer] if number and 0 <= answer < len(choices) else str(answer))
    return answers or [""]


def _ranks_besides(task: Any) -> bool:
    from harness_ext.tasks.qa import FactTask

    return isinstance(task, FactTask)


_managers: dict[object, Any] = {}


def _manager(folders: Sequence[Path], metadata: Mapping[str, Any]) -> Any:
    """lm-eval's index of the folders, cached while their files do not change. Making the index takes longer than building a task."""
    from lm_eval.tasks import TaskManager

    state = tuple((str(file), file.stat().st_mtime_ns) for file in files_below(folders))
    key = (tuple(map(str, folders)), state, repr(sorted(metadata.items())))
    if key not in _managers:
        if len(_managers) >= 8:
            _managers.clear()
        _managers[key] = TaskManager(include_path=[str(folder) for folder in folders], include_defaults=False, metadata=dict(metadata))
    return _managers[key]


# Names of error classes, because the libraries may not be installed. Their ConnectionError is not Python's own.
_NETWORK = {"ConnectionError", "ConnectError", "Timeout", "HfHubHTTPError", "LocalEntryNotFoundError", "DatasetNotFoundError", "URLError"}


def _is_network(error: BaseException | None) -> bool:
    """Whether an error, or one of its causes, is a network error."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, TimeoutError) or _NETWORK & {kind.__name__ for kind in type(error).__mro__}:
            return True
        error = error.__cause__ or error.__context__
    return False
