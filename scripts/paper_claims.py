"""Judges the claims of the paper from the sweeps of scripts/reproduce_paper.sh, and writes the page.

python scripts/paper_claims.py runs/paper --page docs/results.md
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import jinja2
import paper_figures
import typer
from paper_scores import ABILITIES, TASKS, Cell, MissingError, Scores, measure, of, read, told
from paper_tests import PRUNERS, Claim, all_claims, p_value
from paper_verdicts import NOT_MEASURED, NOT_SHOWN, REVERSE, SHOWN, holm

from harness_ext.statistics import DROPS, StatisticsError, ability_critical

HERE = Path(__file__).parent
METHODS = (*PRUNERS, "magnitude")
SWEEPS = ("pruning", "modules", "ladder", "equal", "calibration")
AT_EQUAL = {"lab-s": 0.66493, "lab-xs": 0.875}  # the sparsity at which lab-m has as many weights left in its decoder


def critical_rows(scores: Scores) -> list[dict[str, str]]:
    """The critical sparsity of each ability with each method, at every drop, raw and corrected."""
    found = []
    for pruner in METHODS:
        for ability, tasks in ABILITIES.items():
            row = {"method": pruner, "ability": ability}
            for corrected in (False, True):
                for drop in DROPS:
                    try:
                        one = ability_critical(scores.curves(Cell(pruner=pruner), tasks), drop=drop, corrected=corrected)
                        point = f"> {one.last:.2f}" if one.sparsity is None else f"{one.sparsity:.2f}"
                        row[f"{drop}{corrected}"] = f"{point} ({one.interval_words()})"
                    except (MissingError, StatisticsError):
                        row[f"{drop}{corrected}"] = "-"
            found.append(row)
    return found


def score_rows(scores: Scores) -> list[list[str]]:
    """Every cell: the mean over calibration seeds, with a star where the first seed differs from dense after Holm's correction."""
    cells = [Cell(pruner=pruner, ratio=ratio) for pruner in METHODS for ratio in scores.ratios(Cell(pruner=pruner))]
    tested = [(cell, task) for cell in cells for task in TASKS if (cell, task) in scores.values and (Cell(), task) in scores.values]
    stars = dict(zip(tested, holm([p_value(scores, task, cell) for cell, task in tested]), strict=True))
    rows = []
    for cell in (*(Cell(model) for model in ("lab-xs", "lab-s", "lab-m")), *cells):
        row = [cell.model, cell.pruner, f"{cell.ratio:g}"]
        for task in TASKS:
            if (cell, task) in scores.values:
                mean = float(scores.rows(cell, task, scores.seeds([cell], [task])).mean())
                row.append(f"{mean:.3f}{'*' if stars.get((cell, task)) else ''}")
            else:
                row.append("-")
        rows.append(row)
    return rows


def equal_rows(scores: Scores) -> list[dict[str, str]]:
    """Dense models beside lab-m pruned to as many weights in the decoder."""
    rows = []
    for model, ratio in AT_EQUAL.items():
        pruned = Cell(pruner="sparsegpt", ratio=ratio)
        for ability in ABILITIES:
            try:
                difference = measure(scores, [of(ability, pruned), of(ability, Cell(model))], lambda m: m[:, 0] - m[:, 1], corrected=True)
            except MissingError:
                continue
            rows.append({
                "model": model, "ability": ability, "dense": f"{scores.mean(Cell(model), ability):.3f}",
                "pruned": f"{scores.mean(pruned, ability):.3f}", "difference": told(difference),
            })  # fmt: skip
    return rows


def summary(claims: list[Claim]) -> list[str]:
    """One sentence a kind of outcome."""
    sentences = []
    for outcome, said in ((SHOWN, "Shown"), (REVERSE, "The reverse is shown"), (NOT_SHOWN, "Not shown"), (NOT_MEASURED, "Not measured")):
        names = [claim.name for claim in claims if claim.outcome == outcome]
        if names:
            sentences.append(f"**{said}** ({len(names)} of {len(claims)}): {'; '.join(names)}.")
    return sentences


def render(**values: Any) -> str:
    """The page from its template."""
    loader = jinja2.FileSystemLoader(HERE / "reproduce_paper")
    environment = jinja2.Environment(
        loader=loader, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False
    )  # Markdown, not HTML
    return environment.get_template("results.md.j2").render(**values)


def main(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="That of scripts/reproduce_paper.sh.")],
    page: Annotated[Path, typer.Option(help="The page to write; figures go beside it, verdicts.json into the folder.")],
) -> None:
    scores = read([folder / name for name in SWEEPS if (folder / name / "trials").is_dir()])
    ranked = read([folder / "ranking"], metric="acc") if (folder / "ranking" / "trials").is_dir() else None
    claims = all_claims(scores, ranked)
    (folder / "verdicts.json").write_text(
        json.dumps([asdict(claim) | {"outcome": claim.outcome} for claim in claims], indent=1) + "\n", encoding="utf-8"
    )
    counts = {task: len(ids) for task, ids in scores.ids.items()}
    text = render(
        claims=claims, summary=summary(claims), critical=critical_rows(scores), drops=DROPS, rows=score_rows(scores), tasks=TASKS,
        equal=equal_rows(scores), figures=paper_figures.write(scores, page.parent), counts=counts, facts=scores.facts,
        seeds=len(scores.seeds([Cell(pruner="sparsegpt", ratio=0.6)], TASKS[:1])),
    )  # fmt: skip
    page.write_text(text, encoding="utf-8")
    print(f"{page}: {', '.join(f'{claim.name}: {claim.outcome}' for claim in claims)}")


if __name__ == "__main__":
    typer.run(main)
