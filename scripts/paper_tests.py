"""The claims of Jin et al. (arXiv 2310.04680) and three questions of our own.

Each claim has what the paper reports, the rule by which it is judged, and the measurements. Intervals are 95 % intervals. Claims are judged
one by one, without a correction for their number. Within a claim that looks at many cells, the rule names the correction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from paper_notes import ACQUIRED, DROP, IN_CONTEXT, PRUNERS, SMALLER, before_recall, functions_kept, not_acquired, read_worse
from paper_scores import ABILITIES, Array, Cell, MissingError, Quantity, Scores, ends, measure, of, told
from paper_verdicts import NOT_MEASURED, NOT_SHOWN, NOT_TESTABLE, REVERSE, SHOWN, Claim, Line, Outcome, above, below, near, some

from harness_ext.statistics import Disparity, Estimate, StatisticsError, disparity, mcnemar
from harness_ext.statistics import Scores as ItemScores
from harness_ext.statistics.multiplicity import p_text

MARGIN = 0.05
LEAST_RISE = 0.01
RESAMPLES = 4000
TEXTS_NOTE = (
    "It is not shown that the size of the difference depends on the text. The grid of facts and functions begins at 0.3, so their "
    "recall is located less exactly."
)


def line(what: str, make: Callable[[], tuple[str, Outcome]]) -> Line:
    """Measures. A line names the trials that are missing, or the reason why nothing can be computed."""
    try:
        return Line(what, *make())
    except MissingError as error:
        return Line(what, f"not in the sweeps: {error}", NOT_MEASURED)
    except StatisticsError as error:
        return Line(what, f"cannot be computed: {error}", NOT_MEASURED)


def retained(scores: Scores, ability: str, cell: Cell) -> Estimate:
    """The share of the raw dense score that is retained, as in the paper."""
    return measure(scores, [of(ability, cell.at(0)), of(ability, cell)], lambda m: m[:, 1] / m[:, 0])


def outlasts(
    scores: Scores,
    first: tuple[str, Cell],
    second: tuple[str, Cell],
    *,
    drop: float = DROP,
    corrected: bool = False,
    level: float = 0.95,
    names: tuple[str, str] | None = None,
) -> Disparity:
    """The critical sparsity of ``second`` minus that of ``first``; each is an ability or a task, pruned in one way.

    Args:
        names: what to call the two; by default, the two abilities or tasks.
    """
    tasks = [ABILITIES.get(name, (name,)) for name, _ in (first, second)]
    grids = [[cell.at(0), *(cell.at(ratio) for ratio in scores.ratios(cell))] for _, cell in (first, second)]
    common = scores.seeds([*grids[0], *grids[1]], [*tasks[0], *tasks[1]])
    curves = [scores.curves(cell, of_task, common) for (_, cell), of_task in zip((first, second), tasks, strict=True)]
    return disparity(
        curves[0], curves[1], drop=drop, corrected=corrected, level=level, resamples=RESAMPLES, names=names or (first[0], second[0])
    )


def judged(found: Disparity) -> tuple[str, Outcome]:
    outcomes: dict[str, Outcome] = {"in-context outlasts recall": SHOWN, "recall outlasts in-context": REVERSE, "not shown": NOT_SHOWN}
    one, two = (each.phrase(short=True) for each in (found.recall, found.in_context))
    kind = "" if found.kind == "estimate" else f"{found.kind} "
    said = "unknown" if found.difference is None else f"{kind}{round(found.difference, 2) + 0.0:.2f}"  # + 0.0: never -0.00
    text = f"{found.names[0]} {one}, {found.names[1]} {two}; difference {said} ({ends(found.low, found.high)})"
    return text, outcomes[found.finding]


def recall_early(scores: Scores) -> Claim:
    def make(pruner: str) -> tuple[str, Outcome]:
        found = retained(scores, "recall", Cell(pruner=pruner, ratio=0.4))
        return f"{told(found, 100, 1)} % of the dense score kept at 0.4", below(found.low, found.high, 1 - DROP)

    lines = [line(pruner, lambda pruner=pruner: make(pruner)) for pruner in PRUNERS]  # type: ignore[misc]
    return Claim(
        "Recall of this model falls early",
        "above a sparsity of 0.3, recall loses more than 5 % of its score (P); TriviaQA keeps 95 % up to 0.3, WebQuestions up to 0.4 (N)",
        "at 0.4, the first sparsity of the grid above 0.3, the interval of the share kept lies below 95 %, with both methods",
        lines, lines,
    )  # fmt: skip


def context_kept(scores: Scores, ratio: float) -> Claim:
    def make(pruner: str, ability: str) -> tuple[str, Outcome]:
        found = retained(scores, ability, Cell(pruner=pruner, ratio=ratio))
        return f"{told(found, 100, 1)} % of the dense score kept", above(found.low, found.high, 1 - DROP)

    lines = [line(f"{p}, {name}", lambda p=p, name=name: make(p, name)) for p in PRUNERS for name in IN_CONTEXT]  # type: ignore[misc]
    return Claim(
        f"In-context ability of this model is kept at {ratio:g}",
        "a sparsity of 0.6 to 0.7 costs less than 5 % (P); open-book answers keep 95 % up to 0.5 or 0.6, overriding answers up to 0.7, "
        "linear classifiers and networks up to 0.6, trees up to 0.7 (N); key lookup is our addition",
        f"at {ratio:g}, the interval of the share kept lies above 95 %, for the mean over all in-context tasks, with both methods. The "
        "other lines do not count",
        lines, [one for one in lines if one.what.endswith(", in-context")],
    )  # fmt: skip


def split(scores: Scores, ranked: Scores | None) -> Claim:
    lines = []
    for pruner in PRUNERS:
        for corrected in (False, True):
            what = f"{pruner}, {'chance-corrected' if corrected else 'raw'} scores"
            lines.append(line(what, lambda p=pruner, c=corrected: judged(  # type: ignore[misc]
                outlasts(scores, ("recall", Cell(pruner=p)), ("in-context", Cell(pruner=p)), corrected=c))))  # fmt: skip
    main = list(lines)
    lines.append(line("magnitude, chance-corrected scores", lambda: judged(
        outlasts(scores, ("recall", Cell(pruner="magnitude")), ("in-context", Cell(pruner="magnitude")), corrected=True))))  # fmt: skip
    if ranked is not None:
        cell = Cell(pruner="sparsegpt")
        lines.append(line("sparsegpt, as a choice among 16 answers: recall and reading, chance-corrected", lambda: judged(
            outlasts(ranked, ("recall", cell), ("lab_facts_open", cell), corrected=True))))  # fmt: skip
    return Claim(
        "Recall of this model fails before its in-context ability, with SparseGPT and with Wanda",
        "recall fails above 0.3, in-context ability above 0.6 to 0.7 (P); repeated with Wanda in an appendix (N)",
        "the interval of the difference of the critical sparsities (in-context minus recall) lies above 0, with both methods, raw and "
        "chance-corrected. The critical sparsities are at a drop of 5 %. The other lines do not count",
        lines, main,
    )  # fmt: skip


ORDER = (
    ("recall", "reading"), ("recall", "functions"), ("reading", "override"), ("reading", "icl_tree"), ("icl_linear", "icl_tree"),
    ("icl_nn", "icl_tree"),
)  # fmt: skip


def order(scores: Scores) -> Claim:
    cell = Cell(pruner="sparsegpt")
    level = 1 - 0.05 / len(ORDER)
    lines = [
        line(f"{one} before {other}", lambda a=one, b=other: judged(outlasts(scores, (a, cell), (b, cell), level=level)))  # type: ignore[misc]
        for one, other in ORDER
    ]
    return Claim(
        "Abilities of this model fail in the paper's order",
        "sparsities that keep 95 %: closed-book 0.3 to 0.4, open-book 0.5 to 0.6, linear classifiers and networks 0.6, trees and "
        "overriding 0.7 (N)",
        "with SparseGPT, the intervals of all differences of critical sparsities lie above 0. Scores are raw, the drop is 5 %, and "
        f"intervals are Bonferroni-corrected for {len(ORDER)} comparisons",
        lines, lines,
    )  # fmt: skip


def override_last(scores: Scores) -> Claim:
    lines = [
        line(f"{pruner}: {name} before override", lambda p=pruner, n=name: judged(  # type: ignore[misc]
            outlasts(scores, (n, Cell(pruner=p)), ("override", Cell(pruner=p)))))
        for pruner in PRUNERS for name in ("recall", "reading", "functions")
    ]  # fmt: skip
    return Claim(
        "This model keeps following a passage against memory longest",
        "overriding answers and trees keep 95 % up to 0.7, longer than all other tasks (N)",
        "the intervals of the differences to recall, reading and functions all lie above 0, with both methods. Scores are raw, the drop is "
        "5 %. There is no correction, because all must hold",
        lines, lines,
    )  # fmt: skip


def better_than_magnitude(scores: Scores) -> Claim:
    lines = [
        line(f"{pruner}, {name}", lambda p=pruner, n=name: judged(  # type: ignore[misc]
            outlasts(scores, (n, Cell(pruner="magnitude")), (n, Cell(pruner=p)), corrected=True, names=("magnitude", p))))
        for pruner in PRUNERS for name in ("recall", "in-context")
    ]  # fmt: skip
    return Claim(
        "SparseGPT and Wanda are better than magnitude pruning on this model",
        "stated in the text, not measured there (N)",
        "the interval of the difference of critical sparsities (the method minus magnitude) lies above 0, for recall and for in-context "
        "ability, with both methods. Scores are chance-corrected, the drop is 5 %",
        lines, lines,
    )  # fmt: skip


def ffn_recall(scores: Scores) -> list[Claim]:
    def loss(pruner: str, ability: str, attention: float, ffn: float) -> Callable[[], tuple[str, Outcome]]:
        def make() -> tuple[str, Outcome]:
            cells = [Cell(pruner=pruner, ratio=attention, modules="attention"), Cell(pruner=pruner, ratio=ffn, modules="ffn")]
            found = measure(scores, [of(ability, cell) for cell in cells], lambda m: m[:, 0] - m[:, 1])
            return f"attention pruned minus FFN pruned: {told(found, 100, 1)} points", above(found.low, found.high)

        return make

    equal = [line(f"{p}, {a} at 0.6", loss(p, a, 0.6, 0.6)) for p in ("sparsegpt", "magnitude") for a in ("recall", "in-context")]
    pairs = ((0.4, 0.2), (0.6, 0.3), (0.8, 0.4))
    many = [
        line(f"{p}, {a}: attention {x:g}, FFN {y:g}", loss(p, a, x, y))
        for p in ("sparsegpt", "magnitude") for a in ("recall", "in-context") for x, y in pairs
    ]  # fmt: skip

    def apart(modules: str) -> tuple[str, Estimate]:
        cell = Cell(pruner="sparsegpt", ratio=0.6, modules=modules)
        quantities = [of(name, one) for name in ("in-context", "recall") for one in (cell.at(0), cell)]
        found = measure(scores, quantities, lambda m: m[:, 1] / m[:, 0] - m[:, 3] / m[:, 2], corrected=True)
        return f"share kept in context minus share of recall kept: {told(found)}", found

    def more() -> tuple[str, Outcome]:
        text, found = apart("ffn")
        return text, above(found.low, found.high)

    def alike() -> tuple[str, Outcome]:
        text, found = apart("attention")
        return text, near(found.low, found.high, MARGIN)

    of_ffn, of_attention = line("FFN at 0.6", more), line("attention at 0.6", alike)
    return [
        Claim(
            "At equal sparsity, pruning the FFN of this model hurts recall more than pruning attention",
            "pruning 60 % of the FFN's weights costs TriviaQA 14 points more than pruning 60 % of attention's (N)",
            "with SparseGPT at 0.6, the interval of recall with attention pruned minus recall with the FFN pruned lies above 0. The other "
            "lines do not count",
            equal, equal[:1],
            note="The FFN has twice as many weights as attention. At equal sparsity it therefore loses twice as many.",
        ),
        Claim(
            "At equal numbers of removed weights, pruning the FFN of this model hurts recall more than pruning attention",
            "not measured; at 0.6 the FFN loses twice as many weights in this model",
            "with SparseGPT, the interval of the same difference lies above 0 at all three pairs. In a pair, the FFN has half of "
            "attention's sparsity, which removes equally many weights in this model. The other lines do not count",
            many, [one for one in many if one.what.startswith("sparsegpt, recall")],
            note="The pairs match the number of removed weights, not the damage to the model. Where the *in-context* lines of a pair "
            "differ too, one pruning did more damage overall, and the pair does not say where the facts are stored. For that, both "
            "prunings must first do equal damage to in-context scores or to perplexity. This was not measured.",
            ours=True,
        ),
        Claim(
            "The FFN of this model matters more for recall than for in-context ability",
            "stated (N)",
            "with SparseGPT on the FFN alone at 0.6, chance-corrected, the interval of the difference of the shares kept lies above 0",
            [of_ffn], [of_ffn],
        ),
        Claim(
            "Attention of this model matters about equally for recall and for in-context ability",
            "stated (N)",
            "with SparseGPT on attention alone at 0.6, chance-corrected, the interval of the difference of the shares kept is within "
            f"+-{MARGIN:g}. The reverse: the interval is wholly outside",
            [of_attention], [of_attention],
        ),
    ]  # fmt: skip


def dense_split(scores: Scores) -> Claim:
    def make(model: str, ability: str) -> tuple[str, Outcome]:
        quantities = [of(name, Cell(one)) for name in (ability, "recall") for one in ("lab-m", model)]
        found = measure(scores, quantities, lambda m: m[:, 1] / m[:, 0] - m[:, 3] / m[:, 2], corrected=True)
        parts = [scores.mean(Cell(model), name) / scores.mean(Cell("lab-m"), name) for name in (ability, "recall")]
        return f"{ability} keeps {parts[0]:.3f}, recall {parts[1]:.3f}; difference {told(found)}", above(found.low, found.high)

    lines = [line(f"{m}, {n}", lambda m=m, n=n: make(m, n)) for m in SMALLER for n in IN_CONTEXT]  # type: ignore[misc]
    unlearned = not_acquired(scores)
    return Claim(
        "The smaller dense models of this family lose recall before in-context ability",
        "smaller models of the OPT family lose recall before in-context ability (P)",
        "the interval of the share of in-context ability minus the share of recall lies above 0, for lab-s4, lab-s and lab-xs. Shares are "
        "of the chance-corrected score of the dense lab-m. Single abilities do not count. Not testable: in some in-context ability, a "
        f"smaller model has less than {ACQUIRED:g} of the score of lab-m, by the whole interval. Such a model never learned the ability",
        [*lines, *unlearned], [one for one in lines if one.what.endswith(", in-context")],
        NOT_TESTABLE if unlearned else None,
        note=read_worse(scores) if unlearned else "",
    )  # fmt: skip


def collapse(scores: Scores) -> Claim:
    def share(m: Array) -> Array:
        return np.asarray((m[:, 1] - m[:, 2]) / (m[:, 0] - m[:, 2]))

    def make(pruner: str) -> tuple[str, Outcome]:
        cells = [Cell(pruner=pruner).at(ratio) for ratio in (0.0, 0.7, 0.9)]
        found = measure(scores, [of("functions", cell) for cell in cells], share, corrected=True)
        return f"{told(found)} of the loss up to 0.9 comes after 0.7", above(found.low, found.high, 0.5)

    lines = [line(p, lambda p=p: make(p)) for p in PRUNERS]  # type: ignore[misc]
    return Claim(
        "This model loses more of its function learning above 0.7 than below",
        "falls sharply, not gradually, above 0.7 (P: a reviewer)",
        "the interval of the share of the loss up to 0.9 that comes after 0.7 lies above one half, with both methods. Scores are "
        "chance-corrected",
        lines, lines,
        note=functions_kept(scores),
    )  # fmt: skip


def _cells(scores: Scores, tasks: tuple[str, ...]) -> Iterator[tuple[str, Cell]]:
    for task in tasks:
        for pruner in (*PRUNERS, "magnitude"):
            for ratio in scores.ratios(Cell(pruner=pruner)):
                cell = Cell(pruner=pruner, ratio=ratio)
                if (cell, task) in scores.values and (cell.at(0), task) in scores.values:
                    yield task, cell


def p_value(scores: Scores, task: str, cell: Cell, seed: int = 0) -> float:
    """McNemar's exact test against the dense model, of one calibration seed."""
    ids = scores.ids[task]
    return mcnemar(*(ItemScores(ids, scores.rows(one, task, [seed])[0]) for one in (cell.at(0), cell))).p_value


def rises(scores: Scores) -> Claim:
    cells = list(_cells(scores, ABILITIES["in-context"]))
    level = 1 - 0.05 / max(len(cells), 1)
    p_values, changes, highest, seen = [], [], [], []
    for task, cell in cells:
        rows = [scores.rows(one, task, [0])[0] for one in (cell.at(0), cell)]
        p_values.append(p_value(scores, task, cell))
        changes.append(float((rows[1] - rows[0]).mean()))
    outcome, risen = some(p_values, changes, [1.0] * len(cells), LEAST_RISE)
    if outcome == NOT_SHOWN:
        for task, cell in cells:
            found = measure(scores, [Quantity((task,), cell.at(0)), Quantity((task,), cell)], lambda m: m[:, 1] - m[:, 0], level=level)
            highest.append(1.0 if found.high is None else found.high)
        outcome, risen = some(p_values, changes, highest, LEAST_RISE)
    ranked = sorted(range(len(cells)), key=lambda index: -changes[index])
    for index in risen or ranked[:3]:
        task, cell = cells[index]
        said = f"{100 * changes[index]:+.1f} points, p = {p_text(p_values[index])} without Holm's correction"
        seen.append(Line(f"{task}, {cell.pruner} at {cell.ratio:g}", said, SHOWN if index in risen else NOT_SHOWN))
    return Claim(
        "Some in-context scores of this model rise under pruning",
        "seen in some cases, not tested (N)",
        "at least one score is significantly higher than dense, by McNemar's exact test with Holm's correction over all "
        f"{len(cells)} cells. A cell is an in-context task, a method and a sparsity, with the first calibration seed. The reverse: all "
        f"simultaneous upper ends are below {100 * LEAST_RISE:g} point. The table has the cells that rise, or else the three largest "
        "changes",
        seen, [], outcome,
    )  # fmt: skip


SOURCES = ("self", "facts", "functions")


def calibration(scores: Scores) -> list[Claim]:
    base = Cell(pruner="sparsegpt")
    cells = {name: Cell(pruner="sparsegpt", source=name) for name in SOURCES}
    same = [
        line(f"calibrated on {name}", lambda c=cell: judged(outlasts(scores, ("recall", c), ("in-context", c), corrected=True)))  # type: ignore[misc]
        for name, cell in cells.items()
    ]
    pairs = [(ability, name) for ability in ("recall", "reading", "override", "lookup", "functions") for name in SOURCES[1:]]
    level = 1 - 0.05 / len(pairs)
    changes = {
        (a, n): line(
            f"{a}: calibrated on {n} against self",
            lambda a=a, n=n: judged(outlasts(scores, (a, base), (a, cells[n]), corrected=True, level=level, names=("self", n))),  # type: ignore[misc]
        )
        for a, n in pairs
    }
    return [
        Claim(
            "Recall of this model fails before its mean in-context ability, with each of three calibration texts",
            "not in the paper, which does not name its calibration text",
            "with SparseGPT, in-context ability outlasts recall with each of three texts. These are text of the dense model (self), "
            "facts, and functions, each 64 sequences of 384 tokens. Scores are chance-corrected, the drop is 5 %",
            same, same,
            note=" ".join(
                [TEXTS_NOTE, *(before_recall(scores, name, cell) for name, cell in cells.items())]
            ).strip(),
            ours=True,
        ),
        Claim(
            "Calibrating on one ability's text keeps that ability of this model longer",
            "not in the paper; text formatted as in-context examples is reported to help broadly (arXiv 2410.07461, P)",
            "with SparseGPT, recall lasts longer when calibrated on facts than on the model's own text (self). Functions last longer "
            "when calibrated on functions. Scores are chance-corrected, the drop is 5 %, and intervals are Bonferroni-corrected for "
            f"{len(pairs)} comparisons. The other lines do not count",
            list(changes.values()), [changes[key] for key in (("recall", "facts"), ("functions", "functions"))],
            ours=True,
        ),
    ]  # fmt: skip


def all_claims(scores: Scores, ranked: Scores | None = None) -> list[Claim]:
    """Every claim, in the order of the page."""
    return [
        recall_early(scores), context_kept(scores, 0.6), context_kept(scores, 0.7), split(scores, ranked), order(scores),
        override_last(scores), better_than_magnitude(scores), *ffn_recall(scores), dense_split(scores), collapse(scores), rises(scores),
        *calibration(scores),
    ]  # fmt: skip
