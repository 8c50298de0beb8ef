"""Checks of the documents of a task: they are reproducible, have right answers, and have choices that differ."""

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
FEWSHOT_SEED = 1234  # the default of lm-eval


def check_documents(built: Built) -> list[Finding]:
    """All findings in the documents of a task. Checks that do not apply to the task are skipped.

    Raises:
        NeedsDownloadError: the data of the task cannot be reached.
    """
    findings = []
    for check in DOCUMENT_CHECKS:
        try:
            findings += check_one(check, built)
        except NotCheckedError:
            continue
    return findings


def check_one(check: str, built: Built) -> list[Finding]:
    """The findings of one check. If the task cannot be built or rendered, only the check ``build`` has findings.

    Args:
        check: a name in :data:`DOCUMENT_CHECKS`.
        built: the task.

    Raises:
        NeedsDownloadError: the data of the task cannot be reached.
        NotCheckedError: the check does not apply, for example because no context length is given.
    """
    try:
        problems = built.problems
    except NeedsDownloadError:
        raise
    except Exception as error:
        problems = [("", f"cannot be built: {type(error).__name__}: {first_line(error)}", None)]
    if not problems and not built.docs:
        problems = [("test_split", "there are no documents", None)]
    if problems or check == "build":
        return [Finding(check, built.file, *problem) for problem in problems] if check == "build" else []
    return [Finding(check, built.file, *problem) for problem in DOCUMENT_CHECKS[check](built)]


# --- the checks, which yield problems


def _build(built: Built) -> _Found:
    return iter(())  # found while building


def _same_twice(built: Built) -> _Found:
    again = [dict(doc) for doc in built.build().eval_docs]
    if len(again) != len(built.docs):
        yield "custom_dataset", f"{len(built.docs)} documents, and {len(again)} when it is built again", None
        return
    changed = [number for number, (one, other) in enumerate(zip(built.docs, again, strict=True)) if one != other]
    if changed:
        yield "custom_dataset", f"another document when the task is built again, like {len(changed)} of {len(again)}", changed[0]


def _seed(built: Built) -> _Found:
    for option, value in built.declared.items():
        if (option == "seed" or option.endswith("_seed")) and isinstance(value, int):
            others = ([dict(doc) for doc in built.build(**{option: value + step}).eval_docs] for step in (1, 2))
            if all(docs == built.docs for docs in others):
                yield f"metadata.{option}", f"the same documents with {option} {value}, {value + 1} and {value + 2}", None


def _target(built: Built) -> _Found:
    for number, document in enumerate(built.rendered):
        targets = document.target if isinstance(document.target, (list, tuple)) else [document.target]
        messages = [_wrong(target, document, scored=not built.task.config.process_results) for target in targets]
        if message := next(filter(None, messages), None):
            yield "doc_to_target", message, number
            return


def _wrong(target: Any, document: Rendered, *, scored: bool) -> str | None:
    """The message about a wrong target; None if the target is right."""
    choices = () if document.prompts_ranked else document.choices
    if target is None:
        return "the target is null: there is no right answer" if scored or choices else None
    if not choices:
        return None
    if isinstance(target, int) and not isinstance(target, bool):
        return None if 0 <= target < len(choices) else f"the target is choice {target} of {len(choices)}"
    return None if str(target) in choices else f"the target {str(target)[:60]!r} is none of the choices {_shown(choices)}"


def _choices(built: Built) -> _Found:
    delimiter = built.task.config.target_delimiter
    for number, document in enumerate(built.rendered):
        twice = [choice for choice, count in Counter(document.choices).items() if count > 1]
        if twice:
            yield "doc_to_choice", f"the choice {twice[0]!r} stands more than once in {_shown(document.choices)}", number
            return
        if document.prompts_ranked:
            continue  # the same text follows each prompt
        tokens = sorted((list(built.tokenize(delimiter + choice)), choice) for choice in document.choices)
        for (short, first), (long, other) in pairwise(tokens):
            if long[: len(short)] == short:
                message = f"after tokenisation {first!r} is the beginning of {other!r}: it can never be less likely"
                yield "doc_to_choice", message, number
                return


def _answer_in_prompt(built: Built) -> _Found:
    if built.declared.get("answer_in_prompt"):
        return
    told = [number for number, document in enumerate(built.rendered) if _is_told(document)]
    if told:
        answer = built.rendered[told[0]].answers[0]
        yield (
            "doc_to_text",
            f"the answer {answer[:60]!r} stands in the prompt, as in {len(told)} of {len(built.docs)} documents; "
            "if it should, declare it as metadata: answer_in_prompt: true; of one document, in a column: leaks",
            told[0],
        )


def _is_told(document: Rendered) -> bool:
    if document.target is None or document.doc.get("leaks"):
        return False
    ranked = document.choices if len(document.choices) > 1 and not document.prompts_ranked else ()
    if ranked and all(_states(document.prompt, choice) for choice in ranked):  # a prompt that lists all choices does not tell the answer
        return False
    return any(_states(document.prompt, answer) for answer in document.answers)


def _states(prompt: str, answer: str) -> bool:
    answer = answer.strip()
    return bool(answer) and re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", prompt, re.IGNORECASE) is not None


def _chance(built: Built) -> _Found:
    if (declared := built.declared.get("chance")) is None:
        return
    shares = [document.chance for document in built.rendered if document.choices]
    if not shares:
        raise NotCheckedError("a chance is declared, and there are no choices that it could be the chance of")
    mean = sum(shares) / len(shares)
    if not _close(declared, mean, 0.001):
        yield "metadata.chance", f"declared as {declared}, and a guess among the choices is right with {mean:.4f}", None


def _majority(built: Built) -> _Found:
    declared = built.declared.get("majority")
    if declared is None:
        return
    commonest, count = Counter(document.answers[0] for document in built.rendered).most_common(1)[0]
    share = count / len(built.docs)
    margin = 4 * (max(share, 1e-3) * (1 - share) / len(built.docs)) ** 0.5
    if not _close(declared, share, max(margin, 0.001)):
        yield "metadata.majority", f"declared as {declared}, and answering always {commonest[:60]!r} is right with {share:.4f}", None


def _balance(built: Built) -> _Found:
    if not built.declared.get("balanced"):
        return
    from scipy import stats  # type: ignore[import-untyped]

    by_size: dict[int, Counter[int]] = {}
    for document in built.rendered:
        if document.answers[0] in document.choices:
            by_size.setdefault(len(document.choices), Counter())[document.choices.index(document.answers[0])] += 1
    if not by_size:
        raise NotCheckedError("balanced is declared, and there are no choices among which the right one has a place")
    for size, counts in by_size.items():
        observed = [counts[place] for place in range(size)]
        if sum(observed) >= 5 * size and (p := float(stats.chisquare(observed).pvalue)) < 1e-4:
            yield (
                "metadata.balanced",
                f"declared, but the right one of {size} choices is at places 0, 1, ... {observed} times (p = {p:.1e})",
                None,
            )


def _duplicates(built: Built) -> _Found:
    seen: dict[tuple[Any, ...], int] = {}
    pairs = []
    for number, document in enumerate(built.rendered):
        text = (document.prompt, document.choices, json.dumps(document.answers))
        if (first := seen.setdefault(text, number)) != number:
            pairs.append((first, number))
    if pairs:
        message = f"the same as document {pairs[0][0]}; {len(pairs)} of {len(built.docs)} documents were there before"
        yield "custom_dataset", message, pairs[0][1]


def _context(built: Built) -> _Found:
    if built.longest is None:
        raise NotCheckedError("no context length was given: --task-context-length N")
    if built.task.OUTPUT_TYPE == "loglikelihood_rolling":
        raise NotCheckedError("a rolling likelihood takes texts of any length")
    shots = built.task.config.num_fewshot or 0
    built.task.set_fewshot_seed(FEWSHOT_SEED)
    lengths = []
    for document in built.rendered:
        # fewshot_context adds what lm-eval puts before the prompt: a description, and few-shot examples.
        context = built.task.fewshot_context(document.doc, num_fewshot=shots)
        answers = document.answers if document.prompts_ranked else document.choices or document.answers
        end = built.task.config.target_delimiter + max(answers, key=len)
        lengths.append(max(len(built.tokenize(text + end)) for text in ([context] if isinstance(context, str) else context)))
    greatest = max(lengths)
    if greatest > built.longest:
        over = sum(length > built.longest for length in lengths)
        examples = f" and {shots} few-shot examples" if shots else ""
        message = f"{greatest} tokens with its answer{examples}; {over} of {len(lengths)} have more than {built.longest}"
        yield "doc_to_text", message, lengths.index(greatest)


def _fewshot(built: Built) -> _Found:
    if not built.task.config.num_fewshot:
        return
    prompts = {document.prompt: number for number, document in enumerate(built.rendered)}
    for doc in built.task.fewshot_docs() or []:
        text = built.task.doc_to_text(doc)
        prompt = "\n".join(map(str, built.task.doc_to_choice(doc))) if isinstance(text, int) else str(text)
        if (number := prompts.get(prompt)) is not None:
            yield "num_fewshot", "this document is among those that few-shot examples are drawn from", number
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
