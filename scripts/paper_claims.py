"""Judges the claims of the paper from the sweeps of scripts/reproduce_paper.sh, and writes docs/results.md.

python scripts/paper_claims.py runs/paper --page docs/results.md
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import paper_bits
import paper_family
import paper_figures
import typer
from equal_difficulty import equal_difficulty
from page_templates import fill
from paper_scores import ABILITIES, TASKS, Cell, MissingError, Scores, measure, of, read, rounded, told
from paper_tests import PRUNERS, all_claims, p_value
from paper_verdicts import NOT_MEASURED, NOT_SHOWN, NOT_TESTABLE, REVERSE, SHOWN, Claim, Outcome, holm

from harness_ext.statistics import DROPS, StatisticsError, ability_critical

HERE = Path(__file__).parent
METHODS = (*PRUNERS, "magnitude")
SWEEPS = ("pruning", "modules", "ladder", "equal", "calibration")
# The sparsity at which lab-m has as many decoder weights left as the dense model has.
AT_EQUAL = {"lab-s4": 0.4375, "lab-s": 0.578125, "lab-xs": 0.8125}
OUTCOMES: tuple[Outcome, ...] = (SHOWN, REVERSE, NOT_SHOWN, NOT_TESTABLE, NOT_MEASURED)


def critical_rows(scores: Scores) -> list[dict[str, str]]:
    """The critical sparsity of each ability with each method, at every drop, raw and chance-corrected."""
    found = []
    for pruner in METHODS:
        for ability, tasks in ABILITIES.items():
            row = {"method": pruner, "ability": ability}
            for corrected in (False, True):
                for drop in DROPS:
                    try:
                        one = ability_critical(scores.curves(Cell(pruner=pruner), tasks), drop=drop, corrected=corrected)
                        row[f"{drop}{corrected}"] = f"{one.cell_words()} ({one.interval_words()})"
                    except (MissingError, StatisticsError):
                        row[f"{drop}{corrected}"] = "-"
            found.append(row)
    return found


def score_rows(scores: Scores) -> list[list[str]]:
    """The mean over calibration seeds of every cell. A star: every one of these seeds differs from dense, after Holm's correction.

    The test of a cell has the largest p-value of its seeds: the hypothesis is that at least one of them does not differ (Berger,
    Technometrics 24, 1982, 295-300).
    """
    cells = [Cell(pruner=pruner, ratio=ratio) for pruner in METHODS for ratio in scores.ratios(Cell(pruner=pruner))]
    tested = [(cell, task) for cell in cells for task in TASKS if (cell, task) in scores.values and (Cell(), task) in scores.values]
    worst = [max(p_value(scores, task, cell, seed) for seed in scores.seeds([cell], [task])) for cell, task in tested]
    stars = dict(zip(tested, holm(worst), strict=True))
    rows = []
    for cell in (*(Cell(model) for model in ("lab-xs", "lab-s", "lab-s4", "lab-m")), *cells):
        row = [cell.model, cell.pruner, f"{cell.ratio:g}"]
        for task in TASKS:
            if (cell, task) in scores.values:
                mean = float(scores.rows(cell, task, scores.seeds([cell], [task])).mean())
                row.append(f"{mean:.3f}{'*' if stars.get((cell, task)) else ''}")
            else:
                row.append("-")
        rows.append(row)
    return rows


def equal_rows(scores: Scores) -> list[dict[str, Any]]:
    """Smaller dense models, each beside lab-m pruned to the same number of decoder weights."""
    rows = []
    for model, ratio in AT_EQUAL.items():
        pruned = Cell(pruner="sparsegpt", ratio=ratio)
        for ability in ABILITIES:
            try:
                difference = measure(scores, [of(ability, pruned), of(ability, Cell(model))], lambda m: m[:, 0] - m[:, 1], corrected=True)
            except MissingError:
                continue
            rows.append({
                "model": model, "ability": ability, "dense": rounded(scores.mean(Cell(model), ability), 3),
                "pruned": rounded(scores.mean(pruned, ability), 3), "difference": told(difference), "high": difference.high,
            })  # fmt: skip
    return rows


def summary(claims: list[Claim]) -> list[tuple[str, list[str]]]:
    """Each outcome with links to its claims."""
    groups = []
    for outcome in OUTCOMES:
        links = [f"[{claim.name}](#{anchor(number, claim)})" for number, claim in enumerate(claims, 1) if claim.outcome == outcome]
        if links:
            label = "The reverse is shown" if outcome == REVERSE else f"{outcome[0].upper()}{outcome[1:]}"
            groups.append((f"{label} ({len(links)} of {len(claims)})", links))
    return groups


def anchor(number: int, claim: Claim) -> str:
    """The anchor of the heading of a claim, where the repository is browsed and in the site."""
    return re.sub(r"[^\w -]", "", f"{number} {claim.name}".lower()).replace(" ", "-")


def tallies(claims: list[Claim]) -> list[dict[str, Any]]:
    """How many verdicts of each kind there are, by the rules of this page and by the first rules, of the paper's claims and of ours."""
    rows = []
    paper, ours = ([claim for claim in claims if claim.ours == own] for own in (False, True))
    for whose, group in (("claims of the paper", paper), ("questions of our own", ours)):
        for rules, verdicts in (
            ("rules of this page", [claim.outcome for claim in group]),
            ("first rules", [claim.first_outcome for claim in group]),
        ):
            rows.append({"whose": f"{len(group)} {whose}", "rules": rules, "counts": [verdicts.count(outcome) for outcome in OUTCOMES[:4]]})
    return rows


def moved(claims: list[Claim]) -> list[str]:
    """The claims whose verdict is another by the first rules."""
    return [
        f"[{number}](#{anchor(number, claim)}) from *{claim.first_outcome}* to *{claim.outcome}*"
        for number, claim in enumerate(claims, 1)
        if claim.first_outcome != claim.outcome
    ]


def render(**values: Any) -> str:
    """The page from its template."""
    claims = values["claims"]
    values = {"difficulty": {}, "hard": "", "family": {}, "bits": {}} | values
    values |= {"tallies": tallies(claims), "moved": moved(claims), "anchor": anchor, "paper": sum(not claim.ours for claim in claims)}
    recall = [row for row in values["equal"] if (row["model"], row["ability"]) == ("lab-s", "recall")]
    values["lead"] = next((row for row in recall if row["high"] is not None and row["high"] < 0), None)
    return fill(HERE / "reproduce_paper" / "results.md.j2", **values)


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
    hard = page.with_name("results_difficulty.png")
    difficulty = equal_difficulty([folder / "difficulty"], hard) if (folder / "difficulty" / "trials").is_dir() else {}
    bits = paper_bits.measured(folder)
    if bits:
        paper_figures.save(paper_figures.bits, bits, page.with_name("results_bits.png"))
    families = [folder / "family"] if (folder / "family" / "trials").is_dir() else []
    text = render(
        claims=claims, summary=summary(claims), critical=critical_rows(scores), drops=DROPS, rows=score_rows(scores), tasks=TASKS,
        equal=equal_rows(scores), figures=paper_figures.write(scores, page.parent), counts=counts, facts=scores.facts,
        seeds=len(scores.seeds([Cell(pruner="sparsegpt", ratio=0.6)], TASKS[:1])), difficulty=difficulty, hard=hard.name,
        family=paper_family.measured(families) if families else {}, bits=bits,
    )  # fmt: skip
    page.write_text(text, encoding="utf-8")
    print(f"{page}: {', '.join(f'{claim.name}: {claim.outcome}' for claim in claims)}")


if __name__ == "__main__":
    typer.run(main)
