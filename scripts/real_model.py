"""Writes docs/real-model.md from the sweeps of scripts/real_model.sh.

python scripts/real_model.py page runs/real --page docs/real-model.md
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import real_bits
import real_common
import typer
import yaml
from page_templates import fill
from real_difficulty import difficulty_rows
from real_order import DROP, order_rows
from real_scores import OVERRIDE, READING, RECALL, WORDS, Results, Way, read, whole_part

from harness_ext.report.drawing import STYLE, band, legend, panels, style
from harness_ext.statistics import Disparity, Estimate, StatisticsError, ability_critical, ability_curve
from harness_ext.statistics.disparity import range_words
from harness_ext.sweep import TrialRecord, load
from harness_ext.sweep.records import TRIALS
from harness_ext.sweep.sparsities import parse_sparsities

HERE = Path(__file__).parent
IN_CONTEXT = (READING, OVERRIDE, WORDS)


def told(estimate: Estimate) -> str:
    """``0.53 (0.44 to 0.61)``."""
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.2f}"
    return f"{estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"


def curves(results: Results, way: Way) -> dict[str, Any]:
    """The curve of each ability that was measured and is above chance in the dense model. Without that, there is nothing to lose."""
    found = {name: scores.curve(way, name) for name, scores in results.abilities.items() if scores.above_chance}
    return {ability: curve for ability, curve in found.items() if curve is not None}


def score_rows(results: Results) -> list[list[str]]:
    """A row for the dense model and for each way and sparsity: the mean score of each ability with its interval, and perplexity."""
    names = list(results.abilities)
    dense = [
        "dense",
        "",
        "0",
        millions(results, None, 0.0),
        *(f"{sum(scores.dense.values()) / len(scores.dense):.2f}" for scores in results.abilities.values()),
    ]
    rows = [[*dense, mean(results.perplexity.get((None, 0.0), []))]]
    ways = list(dict.fromkeys(way for scores in results.abilities.values() for way in scores.pruned))
    for way in ways:
        for ratio in sorted({ratio for scores in results.abilities.values() for ratio in scores.pruned.get(way, {})}):
            cells = [cell(results, name, way, ratio) for name in names]
            size = millions(results, way, ratio)
            rows.append([way.name, way.modules, f"{ratio:g}", size, *cells, mean(results.perplexity.get((way, ratio), []))])
    return rows


def cell(results: Results, ability: str, way: Way, ratio: float) -> str:
    """The mean score of an ability with its interval, where its curve has this sparsity; else the mean over what was measured."""
    scores = results.abilities[ability]
    try:
        curve = scores.curve(way, ability)
    except StatisticsError:
        curve = None
    if curve is not None and way.place(ratio) in curve.sparsities:
        summary = ability_curve([curve])
        return told(summary.scores[summary.sparsities.index(way.place(ratio))])
    by_seed = scores.pruned.get(way, {}).get(ratio, {})
    values = [by_item[item] for by_item in by_seed.values() for item in scores.dense]
    return f"{sum(values) / len(values):.2f}" if values else "-"


def millions(results: Results, way: Way | None, ratio: float) -> str:
    """The bits of the whole model, in millions."""
    bits = results.bits[way, ratio]
    return "-" if bits is None else f"{bits / 1e6:,.0f}"


def mean(values: list[float]) -> str:
    return f"{sum(values) / len(values):.1f}" if values else "-"


def critical_rows(results: Results, ways: list[Way]) -> list[list[str]]:
    """The critical sparsity of each ability with each method, in sparsity and with its interval."""
    rows = []
    for way in ways:
        for ability, curve in curves(results, way).items():
            critical = ability_critical([curve], drop=DROP, corrected=True)
            rows.append([way.pruner, ability, critical.cell_words(), critical.interval_words()])
    return rows


def disparity_rows(results: Results, ways: list[Way]) -> list[list[str]]:
    """For each method and ability in context, where recall and the ability fail, how much later the ability does, and what is shown."""

    def places(finding: Disparity) -> list[str]:
        return [finding.recall.interval_words(), finding.in_context.interval_words(), range_words(finding.low, finding.high)]

    return order_rows([(way.pruner, curves(results, way)) for way in ways], IN_CONTEXT, places)


def draw(results: Results, ways: list[Way], path: Path) -> None:
    """Scores corrected for chance against sparsity, a panel for each method."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure, axes = panels(len(ways), columns=2 if len(ways) > 3 else 3, sharey=True)
        for panel, way in zip(axes, ways, strict=True):
            for index, (ability, curve) in enumerate(curves(results, way).items()):
                summary = ability_curve([curve], corrected=True)
                look = style(index)
                band(panel, summary, summary.sparsities, look["color"])
                panel.plot(summary.sparsities, [score.value for score in summary.scores], label=ability, **look)
            panel.set(title=way.pruner, xlabel="sparsity", ylim=(-0.1, 1.05))
            panel.axhline(0, color="#555555", linewidth=0.8)
        axes[0].set_ylabel("score corrected for chance")
        legend(figure, axes, columns=4)
        figure.savefig(path, dpi=130, metadata={"Software": None})


def equal_rows(results: Results) -> list[list[str]]:
    """Attention beside FFN where about as many weights were removed: the two sparsities, the weights, and the abilities kept."""
    rows = []
    for (attention, ratio), removed in sorted(results.zeros.items(), key=lambda entry: entry[1]):
        if attention.modules != "attention":
            continue
        for (ffn, other), also in results.zeros.items():
            if ffn == Way(attention.pruner, "ffn") and abs(also - removed) <= 0.03 * removed:
                for way, sparsity in ((attention, ratio), (ffn, other)):
                    cells = [cell(results, ability, way, sparsity) for ability in (RECALL, *IN_CONTEXT)]
                    rows.append([way.modules, f"{sparsity:g}", f"{results.zeros[way, sparsity] / 1e6:.1f} M", *cells])
    return rows


def not_measured(results: Results, grids: Path) -> list[list[str]]:
    """What the grids in a folder have and the sweeps have not: a row for each way, with what is left, and what its curves are of."""
    rows = []
    for way, of_grids in asked(grids).items():
        found = [scores.pruned[way] for scores in results.abilities.values() if way in scores.pruned]
        cells = {(ratio, seed if way in results.calibrated else 0) for ratio, seed in of_grids}
        left = cells - {(ratio, seed) for by_ratio in found for ratio, by_seed in by_ratio.items() for seed in by_seed}
        if not found:
            rows.append([named(way), "all", "none"])
        elif left:
            by_seed = {seed: [f"{ratio:g}" for ratio, of in sorted(left) if of == seed] for seed in sorted({seed for _, seed in left})}
            ratios, seeds = whole_part(found[0])
            rows.append(
                [
                    named(way),
                    "; ".join(f"{listing(ratios)} with seed {seed}" for seed, ratios in by_seed.items()),
                    f"seed{'s' if len(seeds) > 1 else ''} {listing(map(str, seeds))} at {listing(f'{ratio:g}' for ratio in ratios)}",
                ]
            )
    return sorted(rows)


def listing(words: Iterable[str]) -> str:
    """``a, b and c``."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def named(way: Way) -> str:
    """A way with its kind of layer, such as ``gptq, 4 bits`` or ``sparsegpt of ffn``."""
    return f"{way.name}{'' if way.modules == 'all' else f' of {way.modules}'}"


def asked(grids: Path) -> dict[Way, set[tuple[float, int]]]:
    """The sparsities and calibration seeds of each way in the grids of a folder. Methods that read no text have seed 0."""
    ways: dict[Way, set[tuple[float, int]]] = {}
    for grid in sorted(grids.glob("*.yaml")):
        fields = yaml.safe_load(grid.read_text(encoding="utf-8"))
        pruners, modules, bits, seeds = (
            listed(fields.get(name, default)) for name, default in (("pruner", ""), ("modules", "all"), ("bits", None), ("seeds", 0))
        )
        ratios = [sparsity.ratio for sparsity in parse_sparsities(listed(fields.get("sparsity", 0)))]
        for way in itertools.product(pruners, modules, bits):
            cells = itertools.product(ratios, seeds)
            ways.setdefault(Way(*way), set()).update((ratio, seed) for ratio, seed in cells if ratio or way[2] is not None)
    return ways


def prunes_all_layers(records: Iterable[TrialRecord]) -> bool:
    """Whether no trial of a sweep prunes one kind of layer alone, or quantises."""
    return all(record.is_dense or (record.bits is None and record.modules in (None, "all")) for record in records)


def listed(value: Any) -> list[Any]:
    """The values of a field of a grid, which may be one."""
    return value if isinstance(value, list) else [value]


app = typer.Typer(add_completion=False, help=__doc__)


@app.callback()
def commands() -> None:
    """The one command has a name, as in the other scripts that write pages."""


@app.command()
def page(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="That of scripts/real_model.sh.")],
    page: Annotated[Path, typer.Option(help="The page to write; the figure goes beside it.")],
    grids: Annotated[str, typer.Option(help="The folder of grids in scripts/real_model that was run.")] = "full",
) -> None:
    """Writes the page and its figures."""
    sweeps = sorted(path.parent for path in folder.glob(f"*/{TRIALS}"))
    results = read(sweeps)
    measured = {way for scores in results.abilities.values() for way in scores.pruned}
    ways = sorted((way for way in measured if way.modules == "all" and way.bits is None), key=lambda way: way.pruner)
    figure = page.with_suffix(".png")
    draw(results, ways, figure)
    hard = page.with_name(f"{page.stem}-difficulty.png")
    recalled = [item for item, right in results.abilities[RECALL].dense.items() if right] if RECALL in results.abilities else []
    difficulty = difficulty_rows([sweep for sweep in sweeps if prunes_all_layers(load(sweep))], recalled, hard)
    sizes = page.with_name(f"{page.stem}-bits.png")
    fewest = real_bits.fewest_rows(results) if results.bits[None, 0.0] else []
    if fewest:
        real_bits.draw(results, sizes)
    common = real_common.common_answers(sweeps)
    text = fill(
        HERE / "real_model" / "real-model.md.j2",
        results=results, ways=ways, grids=grids, names=list(results.abilities), rows=score_rows(results),
        critical=critical_rows(results, ways),
        disparities=disparity_rows(results, ways), equal=equal_rows(results), figure=figure.name, drop=round(100 * DROP),
        items={name: len(scores.dense) for name, scores in results.abilities.items()},
        chance={name: scores.chance for name, scores in results.abilities.items()},
        seeds=results.seeds(), difficulty=difficulty, hard=hard.name, fewest=fewest, bits=sizes.name,
        quantised=real_bits.quantised_rows(results), common=common, dense_recall=real_bits.dense_score(results, RECALL) or 0.0,
        uncommon=disparity_rows(real_common.without(results, common.items), ways) if common else [],
        at_chance=[name for name, scores in results.abilities.items() if not scores.above_chance],
        missing=not_measured(results, HERE / "real_model" / grids),
        seeds_of={way.pruner: results.seeds_of(way) if way in results.calibrated else 0 for way in ways},
    )  # fmt: skip
    page.write_text(text, encoding="utf-8")
    print(f"{page}: {results.trials} trials")


if __name__ == "__main__":
    app()
