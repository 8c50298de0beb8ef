"""Checks of the documents that a task builds: the same each time, answers that are there, choices that can be told apart."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from harness_ext.testing.built import Built, NeedsDownloadError, Problem, Rendered, first_line
from harness_ext.testing.findings import Finding, NotCheckedError

_Found = Iterator[Problem]
FEWSHOT_SEED = 1234  # lm-eval's own default


def check_documents(built: Built) -> list[Finding]:
    """All findings in the documents of a task; checks that have nothing to go by are passed over.

    Args:
        built: the task.

    Raises:
        NeedsDownloadError: its data cannot be reached.
    """
    findings = []
    for check in DOCUMENT_CHECKS:
        try:
            findings += check_one(check, built)
        except NotCheckedError:
            continue
    return findings


def check_one(check: str, built: Built) -> list[Finding]:
    """The findings of one check of :data:`DOCUMENT_CHECKS`. Where the task cannot be built or rendered, only ``build`` has any.

    Args:
        check: its name.
        built: the task.

    Raises:
        NeedsDownloadError: its data cannot be reached.
        NotCheckedError: there is nothing to go by, e.g. no context length.
    """
    try:
        problems = built.problems
    except NeedsDownloadError:
        raise
    except Exception as error:
        problems = [("", None, f"cannot be built: {type(error).__name__}: {first_line(error)}")]
    if not problems and not built.docs:
        problems = [("test_split", None, "there are no documents")]
    if problems or check == "build":
        return [Finding(check, built.file, *_in_order(problem)) for problem in problems] if check == "build" else []
    return [Finding(check, built.file, *_in_order(problem)) for problem in DOCUMENT_CHECKS[check](built)]


def _in_order(problem: Problem) -> tuple[str, str, int | None]:
    key, number, message = problem
    return key, message, number


# --- the checks: each gives the key, the document and the message of what it finds


def _build(built: Built) -> _Found:
    return iter(())  # found while building


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
            others = ([dict(doc) for doc in built.build(**{option: value + step}).eval_docs] for step in (1, 2))
            if all(docs == built.docs for docs in others):
                yield f"metadata.{option}", None, f"the same documents with {option} {value}, {value + 1} and {value + 2}"


def _target(built: Built) -> _Found:
    for number, one in enumerate(built.rendered):
        targets = one.target if isinstance(one.target, (list, tuple)) else [one.target]
        if message := next(filter(None, (_wrong(target, one, scored=not built.task.config.process_results) for target in targets)), None):
            yield "doc_to_target", number, message
            return


def _wrong(target: Any, one: Rendered, *, scored: bool) -> str | None:
    """What is wrong with a target, if anything."""
    choices = () if one.prompts_ranked else one.choices
    if target is None:
        return "the target is null: there is no right answer" if scored or choices else None
    if not choices:
        return None
    if isinstance(target, int) and not isinstance(target, bool):
        return None if 0 <= target < len(choices) else f"the target is choice {target} of {len(choices)}"
    return None if str(target) in choices else f"the target {str(target)[:60]!r} is none of the choices {_shown(choices)}"


def _choices(built: Built) -> _Found:
    delimiter = built.task.config.target_delimiter
    for number, one in enumerate(built.rendered):
        twice = [choice for choice, count in Counter(one.choices).items() if count > 1]
        if twice:
            yield "doc_to_choice", number, f"the choice {twice[0]!r} stands more than once in {_shown(one.choices)}"
            return
        if one.prompts_ranked:
            continue  # the same text follows each
        tokens = sorted((list(built.tokenize(delimiter + choice)), choice) for choice in one.choices)
        for (short, first), (long, other) in pairwise(tokens):
            if long[: len(short)] == short:
                yield "doc_to_choice", number, f"after tokenisation {first!r} is the beginning of {other!r}: it can never be less likely"
                return


def _answer_in_prompt(built: Built) -> _Found:
    if built.declared.get("answer_in_prompt"):
        return
    told = [number for number, one in enumerate(built.rendered) if one.target is not None and not one.doc.get("leaks") and _is_told(one)]
    if told:
        answer = built.rendered[told[0]].answers[0]
        yield (
            "doc_to_text",
            told[0],
            f"the answer {answer[:60]!r} stands in the prompt, as in {len(told)} of {len(built.docs)} documents; "
            "if it should, declare it as metadata: answer_in_prompt: true; of one document, in a column: leaks",
        )


def _is_told(one: Rendered) -> bool:
    listed = len(one.choices) > 1 and not one.prompts_ranked and all(_states(one.prompt, choice) for choice in one.choices)
    return not listed and any(_states(one.prompt, answer) for answer in one.answers)  # a list of all choices tells none


def _states(prompt: str, answer: str) -> bool:
    answer = answer.strip()
    return bool(answer) and re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", prompt, re.IGNORECASE) is not None


def _chance(built: Built) -> _Found:
    if (declared := built.declared.get("chance")) is None:
        return
    shares = [one.chance for one in built.rendered if one.choices]
    if not shares:
        raise NotCheckedError("a chance is declared, and there are no choices that it could be the chance of")
    found = sum(shares) / len(shares)
    if not _close(declared, found, 0.001):
        yield "metadata.chance", None, f"declared as {declared}, and a guess among the choices is right with {found:.4f}"


def _majority(built: Built) -> _Found:
    declared = built.declared.get("majority")
    if declared is None:
        return
    commonest, count = Counter(one.answers[0] for one in built.rendered).most_common(1)[0]
    share = count / len(built.docs)
    margin = 4 * (max(share, 1e-3) * (1 - share) / len(built.docs)) ** 0.5
    if not _close(declared, share, max(margin, 0.001)):
        yield "metadata.majority", None, f"declared as {declared}, and answering always {commonest[:60]!r} is right with {share:.4f}"


def _balance(built: Built) -> _Found:
    if not built.declared.get("balanced"):
        return
    from scipy import stats  # type: ignore[import-untyped]

    by_size: dict[int, Counter[int]] = {}
    for one in built.rendered:
        if one.answers[0] in one.choices:
            by_size.setdefault(len(one.choices), Counter())[one.choices.index(one.answers[0])] += 1
    if not by_size:
        raise NotCheckedError("balanced is declared, and there are no choices among which the right one has a place")
    for size, counts in by_size.items():
        observed = [counts[place] for place in range(size)]
        if sum(observed) >= 5 * size and (p := float(stats.chisquare(observed).pvalue)) < 1e-4:
            yield (
                "metadata.balanced",
                None,
                f"declared, but the right one of {size} choices is at places 0, 1, ... {observed} times (p = {p:.1e})",
            )


def _duplicates(built: Built) -> _Found:
    seen: dict[tuple[Any, ...], int] = {}
    pairs = []
    for number, one in enumerate(built.rendered):
        text = (one.prompt, one.choices, json.dumps(one.answers))
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
        raise NotCheckedError("no context length was given: --task-context-length N")
    if built.task.OUTPUT_TYPE == "loglikelihood_rolling":
        raise NotCheckedError("a rolling likelihood takes texts of any length")
    shots = built.task.config.num_fewshot or 0
    built.task.set_fewshot_seed(FEWSHOT_SEED)
    lengths = []
    for one in built.rendered:
        # With what lm-eval puts before the prompt: a description, and few-shot examples.
        asked = built.task.fewshot_context(one.doc, num_fewshot=shots)
        answers = one.answers if one.prompts_ranked else one.choices or one.answers
        end = built.task.config.target_delimiter + max(answers, key=len)
        lengths.append(max(len(built.tokenize(text + end)) for text in ([asked] if isinstance(asked, str) else asked)))
    most = max(lengths)
    if most > built.longest:
        over = sum(length > built.longest for length in lengths)
        examples = f" and {shots} few-shot examples" if shots else ""
        yield (
            "doc_to_text",
            lengths.index(most),
            f"{most} tokens with its answer{examples}; {over} of {len(lengths)} have more than {built.longest}",
        )


def _fewshot(built: Built) -> _Found:
    if not built.task.config.num_fewshot:
        return
    prompts = {one.prompt: number for number, one in enumerate(built.rendered)}
    for doc in built.task.fewshot_docs() or []:
        text = built.task.doc_to_text(doc)
        shown = "\n".join(map(str, built.task.doc_to_choice(doc))) if isinstance(text, int) else str(text)
        if (number := prompts.get(shown)) is not None:
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
