"""Checks of the documents that a task builds: the same each time, answers that are there, choices that can be told apart."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from harness_ext.testing.findings import Finding

_Found = Iterator[tuple[str, int | None, str]]  # key, document and message


class NeedsDownloadError(Exception):
    """The documents are on a hub that cannot be reached."""


def words(text: str) -> list[str]:
    """The tokens that are assumed where no tokenizer is given: words, and marks one by one."""
    return re.findall(r"\w+|[^\w\s]", text)


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

    def build(self, **metadata: Any) -> Any:
        """The task, built anew.

        Raises:
            NeedsDownloadError: its data cannot be reached.
        """
        from lm_eval.tasks import TaskManager

        paths = [str(folder) for folder in self.folders]
        manager = TaskManager(include_path=paths, include_defaults=False, metadata={**self.metadata, **metadata})
        try:
            return manager.load([self.name])["tasks"][self.name]
        except Exception as error:
            if _is_network(error):
                raise NeedsDownloadError(f"its data cannot be had without a network: {_first_line(error)}") from error
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


def check_documents(built: Built) -> list[Finding]:
    """All findings in the documents of a task.

    Raises:
        NeedsDownloadError: its data cannot be reached.
    """
    return [finding for check in DOCUMENT_CHECKS for finding in check_one(check, built)]


def check_one(check: str, built: Built) -> list[Finding]:
    """The findings of one check of :data:`DOCUMENT_CHECKS`. Where the task cannot be built, only the check ``build`` has one."""
    try:
        built.docs  # noqa: B018 (builds it)
    except NeedsDownloadError:
        raise
    except Exception as error:
        return (
            [Finding("build", built.file, "", f"cannot be built: {type(error).__name__}: {_first_line(error)}")] if check == "build" else []
        )
    return [Finding(check, built.file, key, message, number) for key, number, message in DOCUMENT_CHECKS[check](built)]


def choices_of(task: Any, doc: Mapping[str, Any]) -> list[str]:
    """The choices that are ranked, or none: those of a multiple-choice task, or of a task that writes and ranks (``FactTask``)."""
    if task.config.doc_to_choice is not None:
        return [str(choice) for choice in task.doc_to_choice(doc)]
    found = doc.get("choices") if _ranks_besides(task) else None
    return list(found) if isinstance(found, (list, tuple)) else []


def right_answers(task: Any, doc: Mapping[str, Any]) -> list[str]:
    """The right answers as texts, the one that is scored first."""
    target = task.doc_to_target(doc)
    choices = choices_of(task, doc)
    found = []
    for one in target if isinstance(target, (list, tuple)) else [target]:
        number = isinstance(one, int) and not isinstance(one, bool) and bool(choices)
        found.append(choices[one] if number and 0 <= one < len(choices) else str(one))
    return found or [""]


def prompt_of(task: Any, doc: Mapping[str, Any]) -> str:
    """The prompt; of a task whose choices are the prompts, all of them."""
    text = task.doc_to_text(doc)
    return "\n".join(choices_of(task, doc)) if isinstance(text, int) else str(text)


def _ranks_besides(task: Any) -> bool:
    from harness_ext.tasks.qa import FactTask

    return isinstance(task, FactTask)


# --- the checks


def _build(built: Built) -> _Found:
    if not built.docs:
        yield "test_split", None, "there are no documents"


def _same_twice(built: Built) -> _Found:
    again = [dict(doc) for doc in built.build().eval_docs]
    if len(again) != len(built.docs):
        yield "custom_dataset", None, f"{len(built.docs)} documents, and {len(again)} when it is built again"
        return
    changed = [number for number, (one, other) in enumerate(zip(built.docs, again, strict=True)) if one != other]
    if changed:
        yield "custom_dataset", changed[0], f"another document when the task is built again, like {len(changed)} of {len(again)}"


def _seed(built: Built) -> _Found:
    for option, value in built.declared.items():
        if (option == "seed" or option.endswith("_seed")) and isinstance(value, int):
            others = [[dict(doc) for doc in built.build(**{option: value + step}).eval_docs] for step in (1, 2)]
            if all(docs == built.docs for docs in others):
                yield f"metadata.{option}", None, f"the same documents with {option} {value}, {value + 1} and {value + 2}"


def _target(built: Built) -> _Found:
    for number, doc in enumerate(built.docs):
        choices, target = choices_of(built.task, doc), built.task.doc_to_target(doc)
        if not choices or isinstance(built.task.doc_to_text(doc), int):
            continue
        for one in target if isinstance(target, (list, tuple)) else [target]:
            if isinstance(one, int) and not isinstance(one, bool):
                if not 0 <= one < len(choices):
                    yield "doc_to_target", number, f"the target is choice {one} of {len(choices)}"
                    return
            elif str(one) not in choices:
                yield "doc_to_target", number, f"the target {str(one)[:60]!r} is none of the choices {_shown(choices)}"
                return


def _choices(built: Built) -> _Found:
    delimiter = built.task.config.target_delimiter
    for number, doc in enumerate(built.docs):
        choices = choices_of(built.task, doc)
        twice = [choice for choice, count in Counter(choices).items() if count > 1]
        if twice:
            yield "doc_to_choice", number, f"the choice {twice[0]!r} stands more than once in {_shown(choices)}"
            return
        tokens = sorted((list(built.tokenize(delimiter + choice)), choice) for choice in choices)
        for (short, one), (long, other) in pairwise(tokens):
            if long[: len(short)] == short:
                yield "doc_to_choice", number, f"after tokenisation {one!r} is the beginning of {other!r}: it can never be less likely"
                return


def _answer_in_prompt(built: Built) -> _Found:
    if built.declared.get("answer_in_prompt"):
        return
    told = [
        number
        for number, doc in enumerate(built.docs)
        if not doc.get("leaks") and _tells(prompt_of(built.task, doc), right_answers(built.task, doc))
    ]
    if told:
        answer = right_answers(built.task, built.docs[told[0]])[0]
        yield (
            "doc_to_text",
            told[0],
            f"the answer {answer[:60]!r} stands in the prompt, as in {len(told)} of {len(built.docs)} documents; "
            "if it should, declare it as metadata: answer_in_prompt: true; of one document, in a column: leaks",
        )


def _tells(prompt: str, answers: Sequence[str]) -> bool:
    return any(answer.strip() and re.search(rf"(?<!\w){re.escape(answer.strip())}(?!\w)", prompt, re.IGNORECASE) for answer in answers)


def _chance(built: Built) -> _Found:
    sizes = [len(choices) for doc in built.docs if (choices := choices_of(built.task, doc))]
    declared = built.declared.get("chance")
    if declared is None or not sizes:
        return
    found = sum(1 / size for size in sizes) / len(sizes)
    if not _close(declared, found, 0.001):
        yield "metadata.chance", None, f"declared as {declared}, and a guess among the choices is right with {found:.4f}"


def _majority(built: Built) -> _Found:
    declared = built.declared.get("majority")
    if declared is None:
        return
    commonest, count = Counter(right_answers(built.task, doc)[0] for doc in built.docs).most_common(1)[0]
    found = count / len(built.docs)
    margin = 4 * (max(found, 1e-3) * (1 - found) / len(built.docs)) ** 0.5
    if not _close(declared, found, max(margin, 0.001)):
        yield "metadata.majority", None, f"declared as {declared}, and answering always {commonest[:60]!r} is right with {found:.4f}"


def _balance(built: Built) -> _Found:
    if not built.declared.get("balanced"):
        return
    from scipy import stats  # type: ignore[import-untyped]

    by_size: dict[int, Counter[int]] = {}
    for doc in built.docs:
        choices, answers = choices_of(built.task, doc), right_answers(built.task, doc)
        if answers[0] in choices:
            by_size.setdefault(len(choices), Counter())[choices.index(answers[0])] += 1
    for size, counts in by_size.items():
        observed = [counts[place] for place in range(size)]
        if sum(observed) >= 5 * size and (p := float(stats.chisquare(observed).pvalue)) < 1e-4:
            yield (
                "metadata.balanced",
                None,
                f"declared, but the right one of {size} choices is at places 0, 1, ... {observed} times (p = {p:.1e})",
            )


def _duplicates(built: Built) -> _Found:
    seen: dict[str, int] = {}
    pairs = []
    for number, doc in enumerate(built.docs):
        text = json.dumps([prompt_of(built.task, doc), choices_of(built.task, doc), right_answers(built.task, doc)])
        if (first := seen.setdefault(text, number)) != number:
            pairs.append((first, number))
    if pairs:
        yield (
            "custom_dataset",
            pairs[0][1],
            f"the same as document {pairs[0][0]}; {len(pairs)} of {len(built.docs)} documents were there before",
        )


def _context(built: Built) -> _Found:
    if built.longest is None:
        return
    delimiter = built.task.config.target_delimiter
    lengths = []
    for doc in built.docs:
        answers = choices_of(built.task, doc) or right_answers(built.task, doc)
        lengths.append(len(built.tokenize(prompt_of(built.task, doc) + delimiter + max(answers, key=len))))
    most = max(lengths)
    if most > built.longest:
        over = sum(length > built.longest for length in lengths)
        yield "doc_to_text", lengths.index(most), f"{most} tokens with its answer; {over} of {len(lengths)} have more than {built.longest}"


def _fewshot(built: Built) -> _Found:
    if not built.task.config.num_fewshot:
        return
    prompts = {prompt_of(built.task, doc): number for number, doc in enumerate(built.docs)}
    for doc in built.task.fewshot_docs() or []:
        if (number := prompts.get(prompt_of(built.task, doc))) is not None:
            yield "num_fewshot", number, "this document is among those that few-shot examples are drawn from"
            return


DOCUMENT_CHECKS: dict[str, Callable[[Built], _Found]] = {
    "build": _build,
    "same-twice": _same_twice,
    "seed": _seed,
    "target": _target,
    "choices": _choices,
    "answer-in-prompt": _answer_in_prompt,
    "chance": _chance,
    "majority": _majority,
    "balance": _balance,
    "duplicates": _duplicates,
    "context": _context,
    "fewshot": _fewshot,
}


def _close(declared: Any, found: float, margin: float) -> bool:
    return isinstance(declared, (int, float)) and not isinstance(declared, bool) and abs(declared - found) <= margin


def _shown(choices: Sequence[str]) -> str:
    return str([choice[:30] for choice in choices[:6]])[:-1] + (", ...]" if len(choices) > 6 else "]")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300]


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
