"""Answers all requests of one prompt with one forward pass of the prompt.

lm-eval runs the whole prompt once for each answer choice of more than one token. Here the model runs the prompts of a batch once, and
keeps their key-value cache and the logits of their last tokens. These logits predict the first token of each choice. Choices of more
tokens follow without their last token: those of a prompt in one row (``packed_choices.py``) or, where the model cannot do that, as batches
of short continuations. Prompts whose choices are all one token long need no cache (``last_logits.py``).
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.nn import functional as F

from harness_ext.engine.terminal import progress
from harness_ext.host import last_logits, packed_choices
from harness_ext.host.attention import without_cudnn
from harness_ext.host.cache_rows import CannotRepeatError, bytes_of, select
from harness_ext.host.comparison import Comparison
from harness_ext.host.positions import changes_beyond
from harness_ext.host.requests import Answer, Group, Request, Stock, answer_of, prompts_of, takes_of

if TYPE_CHECKING:
    from lm_eval.models.huggingface import HFLM

log = logging.getLogger(__name__)

SHORTEST_PROMPT = 8  # tokens: below this, a second forward pass costs more than it saves
CACHES = ("cache", "past_key_values")  # what transformers calls it since 5.24, and before
FEW = 4  # choices of a long prompt that are compared: any of them shows that the model has a sliding window
PASS_BYTES = 2**30  # of cache up to which a pass has more rows than a batch, on a device other than the CPU


class Kind(NamedTuple):
    """How the model answers a prompt.

    Args:
        padding: tokens that the prompt is padded with.
        follow: tokens that go through the model after the prompt: 0, 1, or 2 for several.
        length: tokens of the prompt.
        together: choices that follow it in its row: 1, or 2 for several; 0 where each has a row of its own.
    """

    padding: int
    follow: int
    length: int
    together: int = 0

    def like(self, checked: Kind) -> bool:
        """Whether a comparison of the other kind covers this one: it needs as much, with at least half as much padding and length."""
        enough = checked.follow >= self.follow and checked.together >= self.together
        return 2 * checked.padding >= self.padding and 2 * checked.length >= self.length and enough


@dataclass
class Way:
    """How prompts are run once, as long as the answers are right.

    Args:
        run: answers a batch: prompts, all requests, and the batch size.
        works: no answer differed yet.
        without: what the log says is not done where it does not work.
        packed: whether choices share a row.
        checked: the kinds of prompts whose answers were compared.
    """

    run: Callable[[list[Group], Sequence[Request], int], dict[int, Answer]]
    works: bool
    without: str = "share the forward pass of a prompt among choices"
    packed: bool = False
    checked: list[Kind] = field(default_factory=list)


class SharedPrompts:
    """Shares prompts for one model, as long as its answers equal those of lm-eval.

    The answers to one prompt of the first batch are compared with lm-eval's own. The same is done for the first prompt that is padded, and
    for the first one whose choices need the cache: for one more token, and for several at once. They are compared again where prompts are
    more than twice as long, or padded with more than twice as many tokens, as those compared before. If answers differ by more than
    rounding, or the model cannot do it, the next way is taken: the choices of a prompt in one row (``packed_choices.py``), a row for each
    with a copy of the cache, and lm-eval's own. Prompts whose choices are all one token long stand by themselves: they need no cache.

    Args:
        lm: a causal language model of lm-eval.
    """

    def __init__(self, lm: HFLM) -> None:
        self.lm = lm
        self._comparison = Comparison(lm)
        can = lm.backend == "causal" and not _learns_prompts(lm.model)
        self._cached = Way(self._run, can)
        packed = functools.partial(self._run, packed=True)
        self._packed = Way(packed, can, "put the choices of a prompt in one row", packed=True)
        self._last = Way(lambda batch, requests, _: last_logits.run(lm, batch, requests), can and last_logits.possible(lm.model))

    @property
    def works(self) -> bool:
        """Whether prompts of longer choices are shared: the cache can be repeated, and no answer differed."""
        return self._cached.works

    def answer(self, requests: list[Request], stock: Stock, *, batch_size: int | None, disable_bar: bool = False) -> list[Answer]:
        """The answers, in the order of the requests.

        Args:
            stock: lm-eval's own function, which answers requests.
            batch_size: number of sequences in a forward pass. None if lm-eval has to find it.
        """
        by_prompt = prompts_of(requests, self.lm.max_length)
        ways = [
            ([self._last], last_logits.groups(by_prompt, requests) if self._last.works else []),
            ([self._packed, self._cached], self._groups(by_prompt, requests) if self._cached.works else []),
        ]
        size = batch_size or (self._found_batch_size(requests) if any(groups for _, groups in ways) else None)
        answers: dict[int, Answer] = {}
        batches = (
            [(tried, batch) for tried, groups in ways for batch in _batches(groups, requests, size, self.lm.max_length)] if size else []
        )
        shown = batches and not disable_bar and self.lm.rank == 0
        with progress("requests with shared prompts", len(batches)) if shown else nullcontext(lambda: None) as advance:
            for tried, batch in batches:
                found = (self._try(way, batch, requests, stock, size or 0, found=not batch_size) for way in tried if way.works)
                for place, answer in next((given for given in found if given is not None), {}).items():
                    answers[place] = answer
                    if requests[place][0] is not None:  # None: a window of a document, which lm-eval keeps by itself
                        self.lm.cache_hook.add_partial("loglikelihood", requests[place][0], answer)
                advance()
        rest = [place for place in range(len(requests)) if place not in answers]
        answers |= dict(zip(rest, stock([requests[place] for place in rest], batch_size), strict=True)) if rest else {}
        return [answers[place] for place in range(len(requests))]

    def _found_batch_size(self, requests: Sequence[Request]) -> int | None:
        """The batch size that lm-eval finds for the longest request; None with several processes, which would wait for each other."""
        if self.lm.world_size > 1:
            log.info("prompts are not shared: several processes look for a batch size together; give --batch_size a number")
            return None
        return int(self.lm._detect_batch_size([max(requests, key=lambda one: len(one[1]) + len(one[2]))]))

    def _groups(self, by_prompt: Mapping[tuple[int, ...], list[int]], requests: Sequence[Request]) -> list[Group]:
        """The prompts whose cache is worth keeping, longest first. Choices that differ only in their last token take lm-eval one pass."""
        limit, longest = changes_beyond(self.lm.model.config), max((len(one[1]) + len(one[2]) - 1 for one in requests), default=0)
        if limit is not None and longest > limit:
            log.info(
                "prompts are not shared: the rotary embeddings of this model change beyond %d tokens, where a cached prompt would not fit",
                limit,
            )
            return []
        groups = [
            Group(list(prompt), places)
            for prompt, places in by_prompt.items()
            if len(prompt) > SHORTEST_PROMPT and len({tuple(requests[place][2][:-1]) for place in places}) > 1
        ]
        return sorted(groups, key=lambda group: -len(group.prompt))

    def _try(
        self, way: Way, batch: list[Group], requests: Sequence[Request], stock: Stock, batch_size: int, *, found: bool
    ) -> dict[int, Answer] | None:
        """The answers of a batch by their indices; None if the model cannot share prompts this way.

        Args:
            found: lm-eval found the batch size, with forward passes that keep no cache.
        """
        try:
            answers = way.run(batch, requests, batch_size)
        except CannotRepeatError as error:
            self._give_up(way, str(error))
            return None
        except torch.OutOfMemoryError:
            if not found and not way.packed:
                raise
            self._give_up(way, f"the memory does not hold the cache of {batch_size} prompts; use a smaller --batch_size")
            return None
        except Exception as error:  # the code of a model may raise anything
            self._give_up(way, f"{type(error).__name__} in a forward pass")
            return None
        for group, kind, new in self._kinds(way, batch, requests):
            undefined = any(math.isnan(answers[place][0]) for place in group.places)
            if not new and not undefined and any(kind.like(checked) for checked in way.checked):
                continue
            if wrong := self._comparison.difference(answers, group, batch, requests, stock, batch_size):
                self._give_up(way, wrong)
                return None
            way.checked.append(kind)
        return answers

    def _kinds(self, way: Way, batch: list[Group], requests: Sequence[Request]) -> Iterator[tuple[Group, Kind, bool]]:
        """The prompts of a batch in the order in which they are compared, their kinds, and whether they are compared in any case.

        The shortest prompt has the most padding, so it is compared first. Where choices share a row, the longest prompt is compared before
        it, unless one as long was: the mask of the row replaces a sliding window, and only a long prompt shows this.
        """
        longest = len(batch[0].prompt)
        longer = way.packed and all(checked.length < longest for checked in way.checked)
        most_tokens = sorted(batch[0].places, key=lambda place: -len(requests[place][2]))
        for place, group in enumerate([Group(batch[0].prompt, most_tokens[:FEW])] * longer + batch[::-1]):
            length, tokens = len(group.prompt), [len(requests[place][2]) - 1 for place in group.places]
            kind = Kind(longest - length, min(2, max(tokens)), length, min(2, sum(map(bool, tokens))) if way.packed else 0)
            yield group, kind, longer and place == 0

    def _give_up(self, way: Way, reason: str) -> None:
        way.works = False
        log.info("%s does not %s: %s", type(self.lm.model).__name__, way.without, reason)

    def _run(self, batch: list[Group], requests: Sequence[Request], batch_size: int, *, packed: bool = False) -> dict[int, Answer]:
        lm, device = self.lm, self.lm.device
        if packed:
            packed_choices.check_model(lm.model)
        prompts, mask = _padded([group.prompt for group in batch], left=True, device=device)
        rows = [(number, place) for number, group in enumerate(batch) for place in group.places]
        longer = sorted((row for row in rows if len(requests[row[1]][2]) > 1), key=lambda row: -len(requests[row[1]][2]))
        with (
            torch.no_grad(),
            without_cudnn(device),
            torch.autocast(lm.device.type, lm.mixed_precision_dtype, lm.mixed_precision_dtype is not None),
        ):
            output = self._call(prompts, mask, use_cache=bool(longer), keep_logits=1)
            chosen = torch.tensor([number for number, _ in rows], device=device)
            first, _ = _padded([requests[place][2][:1] for _, place in rows], left=False, device=device)
            firsts = {place: score for (_, place), score in zip(rows, self._scores(output.logits[:, -1:], first, chosen), strict=True)}
            answers = {place: answer_of(*score) for place, score in firsts.items()}
            if not longer:
                return answers
            cache = next((kept for name in CACHES if (kept := getattr(output, name, None)) is not None), None)
            scores = (
                self._in_one_row(batch, requests, cache, mask, batch_size)
                if packed
                else self._row_by_row(longer, requests, cache, mask, batch_size)
            )
            for place, score in scores:
                # One sum, as lm-eval has it, and without the padding.
                length = len(requests[place][2])
                answers[place] = answer_of(*(torch.cat(parts)[:length] for parts in zip(firsts[place], score, strict=True)))
        return answers

    def _row_by_row(
        self, longer: Sequence[tuple[int, int]], requests: Sequence[Request], cache: Any, mask: torch.Tensor, batch_size: int
    ) -> Iterator[tuple[int, tuple[Any, Any]]]:
        """The scores of the tokens after the first, by the index of the request: from a row for each, with a copy of the cache.

        Args:
            longer: the prompt and the request of each choice of several tokens, longest first.
            mask: of the prompts.
        """
        device = self.lm.device
        at_once = _rows_at_once(batch_size, cache, tuple(mask.shape), len(requests[longer[0][1]][2]) - 1, device)
        for start in range(0, len(longer), at_once):
            part = longer[start : start + at_once]
            chosen = torch.tensor([number for number, _ in part], device=device)
            choices = [requests[place][2] for _, place in part]
            inputs, real = _padded([choice[:-1] for choice in choices], left=False, device=device)
            logits = self._call(inputs, torch.cat([mask[chosen], real], dim=1), select(cache, chosen)).logits
            following, _ = _padded([choice[1:] for choice in choices], left=False, device=device)
            yield from zip((place for _, place in part), self._scores(logits, following), strict=True)

    def _in_one_row(
        self, batch: Sequence[Group], requests: Sequence[Request], cache: Any, mask: torch.Tensor, batch_size: int
    ) -> Iterator[tuple[int, tuple[Any, Any]]]:
        """As :meth:`_row_by_row`, with the choices of a prompt in one row, of no more tokens than the longest prompt or one choice."""
        packed_choices.check_cache(cache)
        passes = packed_choices.packs(batch, requests, mask.shape[1], batch_size)
        for packed in passes:
            there, rows = packed.to(self.lm.device), torch.tensor(packed.prompts, device=self.lm.device)
            seen = packed_choices.as_taken(there.mask(mask[rows]), self.lm.model)
            own_cache = select(cache, None if packed.prompts == [*range(len(batch))] else rows)
            logits = self._call(there.ids, seen, own_cache, positions=mask[rows].sum(1, keepdim=True) + there.offset).logits
            scores = list(self._scores(logits, there.following))
            for span in packed.spans:
                own, greedy = scores[span.row]
                yield span.place, (own[span.start : span.end], greedy[span.start : span.end])

    def _scores(self, logits: torch.Tensor, tokens: torch.Tensor, rows: torch.Tensor | None = None) -> Iterator[tuple[Any, Any]]:
        """For each row of tokens, their log-probabilities, and 1 where a token is the likeliest.

        Args:
            logits: [sequences, positions, vocabulary].
            tokens: [rows, positions].
            rows: the sequence of each row; by default, row i is of sequence i.
        """
        logits = F.log_softmax(logits, dim=-1, dtype=self.lm.softmax_dtype)
        likeliest = logits.argmax(-1)
        if rows is None:
            own = logits.gather(2, tokens[:, :, None])[:, :, 0]
        else:
            own = logits[rows[:, None], torch.arange(tokens.shape[1], device=tokens.device), tokens]
            likeliest = likeliest[rows]
        own, greedy = torch.stack([own, (likeliest == tokens).to(own.dtype)]).cpu()  # waits for the device once
        return zip(own, greedy, strict=True)

    def _call(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor,
        cache: Any = None,
        *,
        use_cache: bool = True,
        keep_logits: int = 0,
        positions: torch.Tensor | None = None,
    ) -> Any:
        model = self.lm.model
        arguments: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "use_cache": use_cache}
        takes = takes_of(model)
        if "position_ids" in takes:
            arguments["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :] if positions is None else positions
        if cache is not None:
            arguments[next((name for name in CACHES if name in takes), CACHES[-1])] = cache
        if keep_logits and "logits_to_keep" in takes:
            arguments["logits_to_keep"] = keep_logits
        return model(**arguments)


def _learns_prompts(model: Any) -> bool:
    """Whether an adapter of peft puts learned tokens before the input, or learned keys and values: padding would stand behind them."""
    return bool(getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False))


def _batches(groups: list[Group], requests: Sequence[Request], batch_size: int, positions: int) -> Iterator[list[Group]]:
    """Groups whose prompts go through the model at once, padded to the longest, with room for each continuation after the padding.

    Args:
        groups: longest prompt first.
        positions: that the model has.
    """
    batch: list[Group] = []
    for group in groups:
        longest = max(len(requests[place][2]) for place in group.places)
        if len(batch) == batch_size or (batch and len(batch[0].prompt) + longest - 1 > positions):
            yield batch
            batch = []
        batch.append(group)
    if batch:
        yield batch


def _rows_at_once(batch_size: int, cache: Any, prompts: tuple[int, ...], longest: int, device: torch.device) -> int:
    """How many continuations go through the model in one pass, where each has a row of its own.

    A pass of a few tokens keeps a CPU busy. Elsewhere there are more rows, as long as their cache takes at most ``PASS_BYTES``. They have
    no more tokens than the pass of the prompts at this batch size, so that their logits take no more memory than lm-eval's own.

    Args:
        prompts: number and length of the prompts that the cache is of.
        longest: tokens of the longest continuation.
    """
    number, length = prompts
    size = bytes_of(cache) // number
    if device.type == "cpu" or not size:
        return batch_size
    return max(batch_size, min(batch_size * length // longest, PASS_BYTES // size))


def _padded(sequences: list[list[int]], *, left: bool, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Padded token ids, and a mask of real tokens, both int64 [sequences, longest]."""
    longest = max(map(len, sequences))
    ids = torch.zeros(len(sequences), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(sequences):
        place = slice(longest - len(tokens), longest) if left else slice(0, len(tokens))
        ids[row, place] = torch.tensor(tokens, dtype=torch.long)
        mask[row, place] = 1
    return ids.to(device), mask.to(device)
