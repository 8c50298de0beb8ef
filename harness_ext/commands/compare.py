"""``harness-ext compare``: two methods on the same items, on the terminal and in files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from harness_ext.commands import options as shared
from harness_ext.commands.errors import errors_in_one_line, listed
from harness_ext.commands.options import File
from harness_ext.commands.printing import console, folded_table

if TYPE_CHECKING:
    from rich.table import Table

    from harness_ext.report.compare import Compared

T = TypeVar("T", int, float)
WIDTH = 200  # of tables in a file or a pipe


def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="Folder of results, or one setting in it: FOLDER:pruner=wanda,sparsity=0.5.")],
    second: Annotated[str, typer.Argument(metavar="B", help="The other folder or setting. Differences are B - A.")],
    recall: shared.Recall = None,
    in_context: shared.InContext = None,
    metric: shared.Metrics = None,
    filters: shared.Filters = None,
    limit: shared.Limit = None,
    resamples: shared.Resamples = 2000,
    json: Annotated[File, typer.Option("--json", help="Also write a JSON file.")] = None,
    csv: Annotated[File, typer.Option("--csv", help="Also write a CSV file.")] = None,
) -> None:
    """Compare two methods on the same items: paired differences with 95 % intervals, McNemar's test, and answers that changed."""
    from harness_ext.extras import require_extra

    with errors_in_one_line():
        require_extra("report", "harness-ext compare")
        from harness_ext.report import compare as comparison

        found = comparison.compare_results(
            first,
            second,
            recall=listed(recall),
            in_context=listed(in_context),
            metrics=listed(metric),
            filters=listed(filters),
            limit=limit,
            resamples=resamples,
        )
        comparison.write(found, json, csv)
    for note in found.notes:
        typer.echo(f"note: {note}", err=True)
    console(WIDTH).print(_table(found))


def _table(found: Compared) -> Table:
    first, second = found.names
    from harness_ext.report.method_pairs import corrected, tests_of
    from harness_ext.statistics.multiplicity import p_text

    caption = "Tasks: raw scores. Abilities: chance-corrected scores."
    count = sum(map(len, tests_of(found.pairs).values()))
    if count > 1:
        caption += f" Holm p: McNemar p with Holm's correction for all {count} tests."
    tests = ("McNemar p", "Holm p") if count > 1 else ("McNemar p",)
    numbers = ("seeds", "items", "A", "B", "B - A", "95 % interval", *tests, "only A right", "only B right")
    title = f"B - A, for A = {first} and B = {second}"
    table = folded_table(("sparsity", "task or ability", *numbers), right=numbers, title=title, caption=caption)
    for pair, differences in corrected(found.pairs):
        sparsity = " / ".join(dict.fromkeys(pair.sparsities))
        for one, p_holm in differences:
            difference, mcnemar = one.difference, one.mcnemar
            p_values = ([test.p_value for test in mcnemar], p_holm)[: len(tests)]
            table.add_row(
                sparsity, one.name, str(one.seeds), str(one.items), f"{one.first:.4f}", f"{one.second:.4f}", signed(difference.value),
                f"{signed(difference.low)} to {signed(difference.high)}", *(_range(values, p_text) for values in p_values),
                _range([test.right_to_wrong for test in mcnemar], str), _range([test.wrong_to_right for test in mcnemar], str),
            )  # fmt: skip
        table.add_section()
    return table


def signed(value: float | None) -> str:
    """``+0.0133``; of a difference that rounds to zero ``+0.0000``, and of none ``-``."""
    return "-" if value is None else f"{round(value, 4) + 0.0:+.4f}"


def _range(values: Sequence[T], text: Callable[[T], str]) -> str:
    """One value, or the least and the greatest over seeds."""
    return " to ".join(dict.fromkeys(text(value) for value in (min(values), max(values)))) if values else ""
