"""The tables of a page, with formatted cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness_ext.report.analysis import Analysis
from harness_ext.report.trials import amount
from harness_ext.report.words import critical_of, first_lost, left_out_words, name_of, of_curves
from harness_ext.statistics.disparity import range_words
from harness_ext.statistics.multiplicity import p_text

UNKNOWN = "-"
LACKS = "  # lacks "  # begins the comment of a command that is not complete
Rows = Mapping[str, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class Table:
    """A table of a page; the first column names the rows.

    Args:
        notes: text above the table.
        numeric: indices of the columns with numbers.
        code: indices of the columns with commands and paths.
    """

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    numeric: Sequence[int] = ()
    code: Sequence[int] = ()


def lost(analysis: Analysis, drop: float) -> Table | None:
    """The table beside the first figure: the sparsities at which each method loses each ability."""
    abilities = of_curves(analysis)
    rows = []
    for series in analysis.series:
        if criticals := critical_of(analysis, series, drop):
            cells = []
            for ability in abilities:
                critical = criticals.get(ability)
                if critical is None:
                    cells.append(UNKNOWN)
                    continue
                words = critical.cell_words().removeprefix("between ").replace(" and ", " to ").replace(" ", "\u00a0")
                wider = (critical.low, critical.high) != critical.cell
                interval_words = critical.interval_words()
                interval_words = interval_words if critical.high is None else interval_words.replace(" ", "\u00a0")
                cells.append(f"{words} ({interval_words})" if wider else words)
            rows.append([series.label, *cells, first_lost(analysis, series, drop)])
    if not rows:
        return None
    correction = f", after Holm's correction for {len(analysis.claims)} statements" if len(analysis.claims) > 1 else ""
    left_out = [words for series in analysis.series if (words := left_out_words(analysis, series.label, named=True))]
    notes = [
        "Between these two measured sparsities; in brackets the 95 % interval, where it is wider. What is lost first is named where the "
        f"intervals show it{correction}.", *left_out
    ]  # fmt: skip
    return Table(f"Sparsity at which {100 * drop:g} % is lost", ["method", *map(name_of, abilities), "lost first"], rows, notes)


COUNTED = (
    "Quantised layers count codes, scales and zero points, pruned layers a mask of one bit for each weight, and all else its dtype. "
    "Quantisation is simulated. "
)


def details(analysis: Analysis, rows: Rows, caveats: Sequence[str]) -> list[Table]:
    """The folded tables. Tables without rows are left out."""
    caveat_notes = [f"Some of these intervals are {caveat}." for caveat in caveats]
    tables = [
        _critical(analysis, caveat_notes),
        _matched(rows["matched"], caveat_notes),
        _methods(rows["methods"], caveat_notes),
        _equal_size(rows["ladder"], "nonzero parameters", "nonzero", "sparsity", "Dense models of the same number of nonzero parameters"),
        _equal_size(rows["bits"], "bits", "bits_of_model", "amount", "Models of the same number of bits", COUNTED),
        _recall(rows["recall"]),
        _perplexity(rows["perplexity"]),
        _seeds(rows["seeds"], caveat_notes),
        _labels(rows["labels"]),
        _scores(rows["scores"]),
    ]
    return [table for table in [*tables, _commands(analysis)] if table.rows]


def _critical(analysis: Analysis, caveat_notes: Sequence[str]) -> Table:
    rows = [
        [label, name_of(ability), f"{100 * drop:g} %", critical.cell_words(), critical.interval_words(),
         f"{critical.seeds}", f"{critical.items}"]
        for (label, ability, drop, corrected), critical in analysis.critical.items() if corrected
    ]  # fmt: skip
    notes = [
        "Of the chance-corrected score. The score falls below the threshold somewhere between the two sparsities; between them nothing was "
        "measured.", *caveat_notes,
    ]  # fmt: skip
    heads = ["method", "ability", "drop", "critical sparsity", "95 % interval", "seeds", "items"]
    return Table("Critical sparsities", heads, rows, notes, (2, 3, 5, 6))


def _matched(rows: Sequence[Mapping[str, Any]], caveat_notes: Sequence[str]) -> Table:
    shown = [
        [row["series"], f"{100 * row['drop']:g} %", ends(row["raw_low"], row["raw_high"]), row["raw_finding"],
         row["refusal"] or ends(row["low"], row["high"]), row["finding"] or UNKNOWN, percentage(row["recall_share"]),
         percentage(row["in_context_share"]), number(row["recall_effective"], 0), number(row["in_context_effective"], 0),
         number(row["apart"], 2), number(row["apart_matched"], 2)]
        for row in rows
    ]  # fmt: skip
    notes = [
        "The critical sparsity of in-context ability less that of recall, chance-corrected: of all items, and between items that the dense "
        "model answers rightly with equal margin. Overlap is the share of these items whose margins the other ability has too; effective "
        "items are those that are left after weighting. Apart is the difference of the mean margins in standard deviations, in-context "
        "ability less recall.", *caveat_notes,
    ]  # fmt: skip
    heads = ["method", "drop", "all items", "finding", "equal margin", "finding at equal margin", "overlap of recall",
             "overlap of in-context ability", "effective items of recall", "effective items of in-context ability", "apart",
             "apart after matching"]  # fmt: skip
    return Table("Disparity at equal dense margin", heads, shown, notes, (1, 6, 7, 8, 9, 10, 11))


def _methods(rows: Sequence[Mapping[str, Any]], caveat_notes: Sequence[str]) -> Table:
    shown = [
        [f"{row['second']} - {row['first']}", row["first_sparsity"], name_of(row["name"]) if row["kind"] == "ability" else row["name"],
         f"{row['items']}", number(row["difference"]), interval(row["low"], row["high"]), p(row["mcnemar_p"]),
         p(row["mcnemar_p_holm"]), whole(row["only_second_right"]), whole(row["only_first_right"])]
        for row in rows if not row["kind"].endswith("one seed")
    ]  # fmt: skip
    which = ("first", "second", "first_sparsity", "second_sparsity", "tasks", "seed")  # an ability of one task has its test
    tests = len({tuple(row[name] for name in which) for row in rows if row["mcnemar_p"] is not None})
    notes = [
        "Two methods on the same items: raw scores of tasks, chance-corrected scores of abilities. McNemar's test is exact; over several "
        f"calibration seeds there is one for each, in methods.csv. Holm's correction is for all {tests} tests there.", *caveat_notes,
    ]  # fmt: skip
    heads = ["methods", "sparsity", "task or ability", "items", "difference", "95 % interval", "McNemar p", "with Holm's correction",
             "only the second right", "only the first right"]  # fmt: skip
    return Table("Methods compared with each other", heads, shown, notes, (1, 3, 4, 6, 7, 8, 9))


def _equal_size(rows: Sequence[Mapping[str, Any]], unit: str, size: str, amount: str, title: str, counted: str = "") -> Table:
    """A table of models of the same size.

    Args:
        unit: of sizes, as a word.
        size, amount: names of the columns of sizes, and of what was removed.
        counted: how sizes are counted, where that needs saying.
    """
    equal = f"dense_at_equal_{size.removesuffix('_of_model')}"
    shown = [
        [row["model"], row["series"] or "nothing removed", row[amount] if amount == "amount" else f"{row[amount]:g}",
         name_of(row["ability"]), f"{row[size]:,.0f}", number(row["corrected_score"]), interval(row["low"], row["high"]),
         number(row[equal])]
        for row in rows
    ]  # fmt: skip
    notes = [
        f"Mean chance-corrected scores, with intervals over items and calibration seeds. {counted}The dense score at equal {unit} is "
        f"interpolated, in the logarithm of {unit}, between the two nearest dense models; a dash stands where there is none on both sides."
    ]
    heads = ["model", "method", "sparsity or bits" if amount == "amount" else amount, "ability", unit, "score", "95 % interval",
             f"dense at equal {unit}"]  # fmt: skip
    return Table(title, heads, shown, notes, (2, 4, 5, 7))


def _perplexity(rows: Sequence[Mapping[str, Any]]) -> Table:
    shown = [
        [row["model"], row["series"] or row["pruner"] or "dense", amount(row["bits"], row["sparsity"]), whole(row["seed"]), row["text"],
         number(row["perplexity"], 2), number(row["times_dense"], 2)]
        for row in rows
    ]  # fmt: skip
    notes = ["The perplexity of a text. It is compared with that of the dense model where text, windows and tokens are the same."]
    heads = ["model", "method", "sparsity", "seed", "text", "perplexity", "times dense"]
    return Table("Perplexity", heads, shown, notes, (2, 3, 5, 6))


def _recall(rows: Sequence[Mapping[str, Any]]) -> Table:
    shown = [
        [row["model"], row["series"] or row["pruner"] or "dense", amount(row["bits"], row["sparsity"]), whole(row["seed"]), row["task"],
         *(number(row[name]) for name in ("exact", "recognition", "recall_at_1", "recall_at_5", "recall_at_10")),
         number(row["median_rank"], 1), *(number(row[name]) for name in ("exact_helped", "recovered", "lost"))]
        for row in rows
    ]  # fmt: skip
    notes = [
        "Shares of facts. Exact: the model writes the answer. Recognition: the right answer is the likeliest of the choices. Recall@k: it "
        "is among the k likeliest of all answers of its relation; the median of its rank is beside it. With help, the prompt has one more "
        "fact of the relation: recovered facts are written with help only, lost ones without help only."
    ]
    heads = [
        "model", "method", "sparsity", "seed", "task", "exact", "recognition", "recall@1", "recall@5", "recall@10", "median rank",
        "exact with help", "recovered", "lost with help",
    ]  # fmt: skip
    return Table("What is lost of recall", heads, shown, notes, (2, 3, *range(5, 14)))


def _seeds(rows: Sequence[Mapping[str, Any]], caveat_notes: Sequence[str]) -> Table:
    shown = [
        [row["model"], row["series"] or row["pruner"], amount(row["bits"], row["sparsity"]), row["task"], f"{row['seeds']}",
         f"{row['items']}",
         number(row["score"], 4), interval(row["score_low"], row["score_high"]), number(row["score_sd"], 4),
         interval(row["score_least"], row["score_greatest"]), number(row["corrected"], 4), number(row["corrected_sd"], 4),
         number(row["retained"]), interval(row["retained_low"], row["retained_high"]), number(row["retained_sd"])]
        for row in rows
    ]  # fmt: skip
    notes = [
        "Mean over the seeds with its 95 % interval over seeds and items, and the standard deviation and range of the seeds, which hold "
        "the noise of the items as well. A dash stands where there is nothing to compare with.", *caveat_notes,
    ]  # fmt: skip
    heads = [
        "model", "method", "sparsity", "task", "seeds", "items", "mean score", "95 % interval", "sd", "range", "mean corrected",
        "sd of corrected", "mean retained", "95 % interval of retained", "sd of retained",
    ]  # fmt: skip
    return Table("Over calibration seeds", heads, shown, notes, (2, 4, 5, 6, 8, 10, 11, 12, 14))


def _labels(rows: Sequence[Mapping[str, Any]]) -> Table:
    shown = [
        [row["model"], row["series"] or row["pruner"] or "dense", amount(row["bits"], row["sparsity"]), whole(row["seed"]), row["task"],
         f"{row['answers']}",
         number(row["entropy"]), number(row["label_entropy"]), f"{row['distinct']}", number(row["commonest"]),
         number(row["balanced_accuracy"])]
        for row in rows
    ]  # fmt: skip
    notes = [
        "The entropy of the answers in bits, beside that of the right labels: 0 is one answer to everything. Answers are numbers of "
        "choices, or texts. Balanced accuracy is the mean over the right labels of the share of their items that were "
        "answered right; a dash stands where the records do not say which label is right."
    ]
    heads = [
        "model", "method", "sparsity", "seed", "task", "answers", "entropy", "entropy of right labels", "different answers",
        "share of the commonest", "balanced accuracy",
    ]  # fmt: skip
    return Table("Use of labels", heads, shown, notes, (2, 3, 5, 6, 7, 8, 9, 10))


def _scores(rows: Sequence[Mapping[str, Any]]) -> Table:
    shown = [
        [row["model"], row["series"] or row["pruner"] or "dense", amount(row["bits"], row["sparsity"]), whole(row["seed"]), row["task"],
         row["metric"],
         number(row["score"], 4), number(row["stderr"], 4), whole(row["items"]),
         f"{row['chance']:g}{'' if row['chance_declared'] else ' (assumed)'}", number(row["corrected"], 4), number(row["retained"]),
         interval(row["retained_low"], row["retained_high"]), p(row["mcnemar_p"]),
         whole(row["right_to_wrong"]), whole(row["wrong_to_right"])]
        for row in rows
    ]  # fmt: skip
    notes = [
        "Corrected is (score - chance) / (1 - chance). Retained is that of the pruned model as a share of the dense one's, with its paired "
        "95 % interval. McNemar's exact test and the flips compare with the dense model item by item. A dash stands where something does "
        "not apply or could not be computed."
    ]
    heads = [
        "model", "method", "sparsity", "seed", "task", "score", "value", "stderr", "items", "chance", "corrected", "retained",
        "95 % interval", "McNemar p", "right to wrong", "wrong to right",
    ]  # fmt: skip
    return Table("Every trial and task", heads, shown, notes, (2, 3, 6, 7, 8, 9, 10, 11, 13, 14, 15))


def _commands(analysis: Analysis) -> Table:
    rows = [
        [trial.fingerprint, trial.pretrained, trial.dense_digest, number(trial.achieved, 4), trial.command, trial.source]
        for trial in analysis.trials
    ]
    notes = [
        "The trials, the fingerprints of their weights, and commands that give the same numbers.",
        *(["Some commands were rebuilt from results. A comment at their end, # lacks, names the options that results do not hold."]
          if any(LACKS in trial.command for trial in analysis.trials) else []),
    ]  # fmt: skip
    heads = ["fingerprint", "model", "dense weights", "achieved sparsity", "command", "read from"]
    return Table("Trials and their commands", heads, rows, notes, (3,), (4, 5))


def number(value: float | None, digits: int = 3) -> str:
    """A number, or a dash if it is unknown."""
    return UNKNOWN if value is None else f"{value:.{digits}f}"


def p(value: float | None) -> str:
    """A p-value, or a dash if it is unknown."""
    return UNKNOWN if value is None else p_text(value)


def whole(value: int | None) -> str:
    """A whole number, or a dash if it is unknown."""
    return UNKNOWN if value is None else f"{value}"


def interval(low: float | None, high: float | None) -> str:
    """``0.35 to 0.41``, with a dash for an unknown end."""
    return UNKNOWN if low is None and high is None else f"{number(low)} to {number(high)}"


def ends(low: float | None, high: float | None) -> str:
    """``0.1 to 0.3``, ``0.1 or more``, or a dash if nothing is known; of a difference of sparsities."""
    return UNKNOWN if low is None and high is None else range_words(low, high)


def percentage(share: float | None) -> str:
    """``61 %``, or a dash if it is unknown."""
    return UNKNOWN if share is None else f"{100 * share:.0f} %"
