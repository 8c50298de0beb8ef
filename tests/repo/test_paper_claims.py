"""The verdicts on the paper's claims: their logic on simulated sweeps of known truth, and the grids."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import paper_claims
import paper_figures
import paper_tests
from paper_scores import ABILITIES, TASKS, Cell, MissingError, Quantity, Scores, chance, measure, of
from paper_verdicts import NOT_MEASURED, NOT_SHOWN, NOT_TESTABLE, REVERSE, SHOWN, above, below, every, holm, near, one_reversed_part, some

from harness_ext.commands.cli import app
from harness_ext.sweep.fields import read as read_fields

SCRIPTS = Path(__file__).parents[2] / "scripts"
GRID = [round(0.1 * step, 1) for step in range(1, 10)]
ITEMS = 400


@pytest.fixture(autouse=True, scope="module")
def fewer_resamples():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paper_tests, "RESAMPLES", 600)
        yield


def simulate(scores, cell, failing, *, seeds=(0, 1, 2), width=0.1, rise=0.0, tasks=TASKS):
    """Adds a cell: an item of a task is lost for good at a sparsity drawn around ``failing[task]``; a wrong one is won with ``rise``."""
    for task in tasks:
        rng = np.random.default_rng([TASKS.index(task), 7])
        floor = chance(task, "exact_match" if task.startswith("lab_") else "acc")
        dense, fails, guess, luck = rng.random(ITEMS) < 0.92, rng.normal(size=ITEMS), rng.random(ITEMS), rng.random(ITEMS)
        for seed in seeds if cell.ratio else (0,):
            shift = np.random.default_rng([seed, 3]).normal() * 0.002
            held = fails * width + failing.get(task, 2.0) + shift > cell.ratio
            right = np.where(dense, held | (guess < floor), (luck < rise) & (cell.ratio > 0))
            scores.add(cell, task, seed, {(task, item): float(value) for item, value in enumerate(right)}, floor)


def experiment(recall, in_context, *, magnitude=0.15, **options):
    """Dense lab-m and three methods; abilities fail around these sparsities, with magnitude earlier by ``magnitude``."""
    scores = Scores()
    failing = {task: recall if task in ABILITIES["recall"] else in_context for task in TASKS}
    simulate(scores, Cell(), failing)
    for pruner, earlier in (("sparsegpt", 0.0), ("wanda", 0.0), ("magnitude", magnitude)):
        for ratio in GRID:
            moved = {task: where - earlier for task, where in failing.items()}
            simulate(scores, Cell(pruner=pruner, ratio=ratio), moved, seeds=(0,) if pruner == "magnitude" else (0, 1, 2), **options)
    return scores


@pytest.fixture(scope="module")
def early():
    """Recall fails before in-context ability, and magnitude pruning before the others."""
    return experiment(0.45, 0.8, width=0.06)


@pytest.fixture(scope="module")
def late():
    """The other way round."""
    return experiment(0.8, 0.45, magnitude=-0.15, width=0.06)


@pytest.fixture(scope="module")
def same():
    """Everything fails at once."""
    return experiment(0.6, 0.6, magnitude=0.0)


class TestRules:
    @pytest.mark.parametrize(
        ("low", "high", "outcome"), [(0.1, 0.3, SHOWN), (-0.3, -0.1, REVERSE), (-0.1, 0.1, NOT_SHOWN), (0.0, 0.2, NOT_SHOWN)]
    )
    def test_the_side_of_the_interval_decides(self, low, high, outcome):
        assert above(low, high) == above(low + 5, high + 5, 5) == outcome
        assert below(-high, -low) == outcome

    @pytest.mark.parametrize(
        ("low", "high", "outcome"), [(0.1, None, SHOWN), (None, -0.1, REVERSE), (None, 0.1, NOT_SHOWN), (-0.1, None, NOT_SHOWN)]
    )
    def test_an_open_end_is_unbounded(self, low, high, outcome):
        assert above(low, high) == outcome

    @pytest.mark.parametrize(
        ("low", "high", "outcome"),
        [(-0.01, 0.04, SHOWN), (0.06, 0.2, REVERSE), (-0.2, -0.06, REVERSE), (0.01, 0.09, NOT_SHOWN), (None, 0.01, NOT_SHOWN)],
    )
    def test_equality_wants_an_interval_within_the_margin(self, low, high, outcome):
        assert near(low, high, 0.05) == outcome

    def test_a_claim_of_several_parts_is_shown_only_if_all_are(self):
        assert every([SHOWN, SHOWN]) == SHOWN
        assert every([SHOWN, NOT_SHOWN]) == NOT_SHOWN
        assert every([NOT_SHOWN, REVERSE, NOT_MEASURED]) == REVERSE
        assert every([SHOWN, REVERSE]) == NOT_SHOWN
        assert every([NOT_SHOWN, NOT_MEASURED]) == NOT_MEASURED == every([])

    def test_by_the_first_rule_one_reversed_part_is_enough(self):
        assert one_reversed_part([SHOWN, REVERSE]) == one_reversed_part([NOT_SHOWN, REVERSE]) == REVERSE
        for outcomes in ([SHOWN, SHOWN], [SHOWN, NOT_SHOWN], [NOT_SHOWN, NOT_MEASURED], []):
            assert one_reversed_part(outcomes) == every(outcomes)

    def test_holm_is_that_of_its_definition(self):
        p = np.array([0.04, 0.001, 0.013, 0.02, 0.6])
        expected, going = np.zeros(5, bool), True
        for rank, index in enumerate(np.argsort(p)):
            going = going and p[index] <= 0.05 / (5 - rank)
            expected[index] = going
        assert holm(p) == expected.tolist()
        assert 0 < sum(holm(p)) < 5

    def test_one_cell_of_many_must_survive_the_correction(self):
        p, ups = [0.02] + [0.5] * 9, [0.05] * 10
        assert some(p, [0.03] + [0.0] * 9, ups, 0.01) == (NOT_SHOWN, [])
        assert some([0.001, *p[1:]], [0.03] + [0.0] * 9, ups, 0.01) == (SHOWN, [0])
        assert some([0.001, *p[1:]], [-0.03] + [0.0] * 9, [0.005] * 10, 0.01) == (REVERSE, [])
        assert some([], [], [], 0.01) == (NOT_MEASURED, [])


class TestClaims:
    def test_the_split(self, early, late, same):
        assert [paper_tests.split(one, None).outcome for one in (early, late, same)] == [SHOWN, REVERSE, NOT_SHOWN]

    def test_early_recall(self, early, late):
        assert paper_tests.recall_early(early).outcome == SHOWN
        assert paper_tests.recall_early(late).outcome == REVERSE
        assert paper_tests.recall_early(experiment(0.4 + 0.1 * 1.645, 0.9)).outcome == NOT_SHOWN  # 5 % are lost at 0.4

    def test_kept_in_context(self, early, late):
        assert paper_tests.context_kept(early, 0.6).outcome == SHOWN
        assert paper_tests.context_kept(late, 0.6).outcome == REVERSE
        assert (
            paper_tests.context_kept(experiment(0.3, 0.6 + 0.1 * 1.555), 0.6).outcome == NOT_SHOWN
        )  # as much, of which functions show half

    def test_better_than_magnitude(self, early, late, same):
        assert [paper_tests.better_than_magnitude(one).outcome for one in (early, late, same)] == [SHOWN, REVERSE, NOT_SHOWN]

    def test_order_and_what_is_kept_longest(self, early):
        order = {"lab_facts_closed": 0.4, "lab_facts_open": 0.55, "lab_unseen_open": 0.55, "icl_linear": 0.65, "icl_nn": 0.65}

        def ordered(failing):
            scores = Scores()
            for cell in (Cell(), *(Cell(pruner=p, ratio=r) for p in ("sparsegpt", "wanda") for r in GRID)):
                simulate(scores, cell, {task: failing.get(task, 0.8) for task in TASKS}, width=0.05)
            return scores

        right, wrong = ordered(order), ordered({**dict.fromkeys(order, 0.8), "icl_tree": 0.5, "lab_facts_override": 0.5})
        assert [claim(right).outcome for claim in (paper_tests.order, paper_tests.override_last)] == [SHOWN, SHOWN]
        assert [claim(wrong).outcome for claim in (paper_tests.order, paper_tests.override_last)] == [REVERSE, REVERSE]
        assert paper_tests.order(early).outcome == NOT_SHOWN
        override = {one.what: one.outcome for one in paper_tests.override_last(early).lines}
        assert override["wanda: recall before override"] == SHOWN
        assert override["wanda: reading before override"] == NOT_SHOWN

    @pytest.mark.parametrize(("ffn", "attention", "outcomes"), [
        ((0.2, 0.9), (0.9, 0.9), [SHOWN, SHOWN, SHOWN, SHOWN]),
        ((0.9, 0.9), (0.2, 0.9), [REVERSE, REVERSE, NOT_SHOWN, REVERSE]),
        ((0.65, 0.65), (0.65, 0.65), [NOT_SHOWN, REVERSE, NOT_SHOWN, NOT_SHOWN]),  # at half the sparsity the FFN loses less
    ])  # fmt: skip
    def test_ffn_and_attention(self, ffn, attention, outcomes):
        scores = Scores()
        simulate(scores, Cell(), {})
        for pruner in ("sparsegpt", "magnitude"):
            for modules, (recall, context) in (("ffn", ffn), ("attention", attention)):
                for ratio in (0.2, 0.3, 0.4, 0.6, 0.8):
                    failing = {task: recall if task in ABILITIES["recall"] else context for task in TASKS}
                    simulate(scores, Cell(pruner=pruner, ratio=ratio, modules=modules), failing)
        found = [claim.outcome for claim in paper_tests.ffn_recall(scores)]
        assert found[:2] == outcomes[:2]
        assert found[2] == outcomes[2]
        assert found[3] == outcomes[3]

    @pytest.mark.parametrize(("recall", "context", "outcome"), [(0.5, 0.9, SHOWN), (0.9, 0.5, REVERSE), (0.7, 0.7, NOT_SHOWN)])
    def test_dense_models(self, recall, context, outcome):
        scores = Scores()
        for model, share in (("lab-m", 1.0), ("lab-s4", 0.97), ("lab-s", 0.95), ("lab-xs", 0.9)):
            for task in TASKS:
                kept = (recall if task in ABILITIES["recall"] else context) * share if model != "lab-m" else 1.0
                rng, floor = np.random.default_rng(TASKS.index(task)), chance(task, "exact_match" if task.startswith("lab_") else "acc")
                right = rng.random(ITEMS) < floor + (1 - floor) * kept
                scores.add(Cell(model), task, 0, {(task, item): float(value) for item, value in enumerate(right)}, floor)
        assert paper_tests.dense_split(scores).outcome == outcome

    @pytest.mark.parametrize(("reading", "outcome"), [(0.1, NOT_TESTABLE), (0.5, REVERSE)])
    def test_a_smaller_model_that_never_learned_to_read_has_not_lost_it(self, reading, outcome):
        scores = Scores()
        for model in ("lab-m", "lab-s4", "lab-s", "lab-xs"):
            for task in TASKS:
                kept = reading if task in ABILITIES["reading"] and model != "lab-m" else 0.95
                rng, floor = np.random.default_rng(TASKS.index(task)), chance(task, "exact_match" if task.startswith("lab_") else "acc")
                right = rng.random(ITEMS) < floor + (1 - floor) * kept
                scores.add(Cell(model), task, 0, {(task, item): float(value) for item, value in enumerate(right)}, floor)
        claim = paper_tests.dense_split(scores)
        assert claim.outcome == outcome
        assert claim.first_outcome == REVERSE
        assert ("lab-s answers" in claim.note) == (outcome == NOT_TESTABLE)

    def test_a_collapse_is_told_from_fading(self):
        sharp, faded, between = experiment(0.4, 0.82, width=0.03), experiment(0.4, 0.5, width=0.1), experiment(0.4, 0.7, width=0.2)
        assert [paper_tests.collapse(one).outcome for one in (sharp, faded)] == [SHOWN, REVERSE]
        assert paper_tests.collapse(between).outcome in (NOT_SHOWN, REVERSE)
        kept = [
            round(100 * sharp.mean(Cell(pruner="wanda", ratio=ratio), "functions") / sharp.mean(Cell(), "functions"))
            for ratio in (0.7, 0.8)
        ]
        assert f"{kept[0]}, {kept[1]} and " in paper_tests.collapse(sharp).note

    def test_rises(self, early):
        assert paper_tests.rises(experiment(0.5, 1.5, rise=0.7)).outcome == SHOWN
        found = paper_tests.rises(early)
        assert found.outcome != SHOWN
        assert len(found.lines) == 3

    def test_calibration(self):
        scores = experiment(0.45, 0.8, width=0.06)
        for source, recall in (("facts", 0.6), ("functions", 0.45)):
            for ratio in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8):
                failing = {task: recall if task in ABILITIES["recall"] else 0.8 for task in TASKS}
                simulate(scores, Cell(pruner="sparsegpt", ratio=ratio, source=source), failing, width=0.06)
        robust, own = paper_tests.calibration(scores)
        assert robust.outcome == SHOWN
        lines = {one.what: one.outcome for one in own.lines}
        assert lines["recall: calibrated on facts against self"] == SHOWN
        assert lines["recall: calibrated on functions against self"] == NOT_SHOWN
        assert own.outcome == NOT_SHOWN  # functions do not last longer
        assert "exception" not in robust.note

    def test_an_ability_that_fails_before_recall_is_named_though_the_mean_outlasts_it(self):
        scores = experiment(0.45, 0.8, width=0.06)
        for source in ("facts", "functions"):
            for ratio in GRID:
                failing = dict.fromkeys(TASKS, 0.8) | {"lab_facts_closed": 0.6}
                if source == "facts":
                    failing |= dict.fromkeys(ABILITIES["functions"], 0.5)
                simulate(scores, Cell(pruner="sparsegpt", ratio=ratio, source=source), failing, width=0.06)
        note = paper_tests.calibration(scores)[0].note
        assert re.search(r"Calibrated on facts, functions \(0\.\d\d\) fail before recall", note)
        assert "Calibrated on functions" not in note

    def test_what_the_sweeps_do_not_hold_is_not_measured(self):
        scores = experiment(0.45, 0.8, width=0.06)
        for claim in (paper_tests.dense_split(scores), *paper_tests.ffn_recall(scores)):
            assert claim.outcome == NOT_MEASURED
            assert "not in the sweeps" in claim.lines[0].figure


class TestMeasure:
    def test_a_difference_is_that_of_means_and_its_interval_holds_it(self, early):
        cells = [Cell(), Cell(pruner="sparsegpt", ratio=0.5)]
        found = measure(early, [of("functions", cell) for cell in cells], lambda m: m[:, 0] - m[:, 1], corrected=True)
        means = [
            np.mean([2 * early.rows(cell, task, early.seeds([cell], [task])).mean() - 1 for task in ABILITIES["functions"]])
            for cell in cells
        ]
        assert found.value == pytest.approx(means[0] - means[1])
        assert found.low <= found.value <= found.high

    def test_pairing_narrows_the_interval(self, early):
        one = Quantity(("icl_nn",), Cell()), Quantity(("icl_nn",), Cell(pruner="magnitude", ratio=0.5))
        found = measure(early, one, lambda m: m[:, 1] - m[:, 0])
        alone = [measure(early, [quantity], lambda m: m[:, 0]) for quantity in one]
        assert found.high - found.low < np.hypot(*(each.high - each.low for each in alone))

    def test_scores_that_do_not_differ_leave_room_for_doubt(self):
        scores = experiment(2.0, 2.0, magnitude=0.0)
        found = measure(scores, [of("recall", Cell()), of("recall", Cell(pruner="wanda", ratio=0.5))], lambda m: m[:, 1] / m[:, 0])
        assert found.value == 1
        assert found.low < 1 < found.high

    def test_other_items_and_other_results_are_refused(self, early):
        task = TASKS[0]
        with pytest.raises(ValueError, match="are not those of the other trials"):
            early.add(Cell(), task, 0, {(task, 0): 1.0}, 0.0)
        with pytest.raises(ValueError, match="two results of"):
            early.add(Cell(), task, 0, {(task, item): 0.5 for item in range(ITEMS)}, 0.0)

    def test_a_missing_seed_is_not_replaced_by_another(self, early):
        with pytest.raises(MissingError):
            early.rows(Cell(pruner="wanda", ratio=0.5), TASKS[0], [0, 9])


@pytest.fixture(scope="module")
def claims(early):
    return paper_tests.all_claims(early)


class TestPage:
    def test_the_page_says_each_verdict_and_escapes_nothing(self, early, claims):
        text = paper_claims.render(
            claims=claims, summary=paper_claims.summary(claims), critical=paper_claims.critical_rows(early), drops=(0.02, 0.05, 0.1),
            rows=paper_claims.score_rows(early), tasks=TASKS, equal=[], counts={"kv_4": 3}, facts={"trials": "1", "minutes": "2"}, seeds=3,
        )  # fmt: skip
        for number, claim in enumerate(claims, 1):
            assert f"**{claim.name}: {claim.outcome}.**" in text
            assert f"### {number}. {claim.name}\n" in text
            assert claim.note in text
        assert "## Main result" not in text
        assert "&" not in text
        tables = [line for line in text.splitlines() if line.startswith("|")]
        blocks, last = [], ""
        for line in text.splitlines():
            if line.startswith("|"):
                (blocks[-1] if last.startswith("|") else blocks.append([]) or blocks[-1]).append(line.count("|"))
            last = line
        assert len(tables) > 60
        assert all(len(set(block)) == 1 and len(block) > 2 for block in blocks if block)

    def test_both_tallies_count_every_claim(self, claims):
        rows = paper_claims.tallies(claims)
        assert [row["rules"] for row in rows] == 2 * ["rules of this page", "first rules"]
        measured = [claim for claim in claims if claim.outcome != NOT_MEASURED]
        assert sum(sum(row["counts"]) for row in rows if row["rules"] == "rules of this page") == len(measured)
        assert [claim.ours for claim in claims].count(True) == 3

    @pytest.mark.parametrize(("high", "leads"), [(-0.5, True), (0.2, False), (None, False)])
    def test_the_page_leads_with_capacity_only_if_the_interval_says_so(self, high, leads):
        row = {"model": "lab-s", "ability": "recall", "dense": "1.000", "pruned": "0.2", "difference": "-0.8 (...)", "high": high}
        text = paper_claims.render(
            claims=[], summary=[], critical=[], drops=(0.05,), rows=[], tasks=TASKS, equal=[row], counts={},
            facts={"trials": "1", "minutes": "2"}, seeds=1,
        )  # fmt: skip
        assert ("## Main result" in text) == leads
        assert "## Equal difficulty" not in text

    def test_the_page_has_the_sentences_at_equal_difficulty(self):
        text = paper_claims.render(
            claims=[], summary=[], critical=[], drops=(0.05,), rows=[], tasks=TASKS, equal=[], counts={},
            facts={"trials": "1", "minutes": "2"}, seeds=1, difficulty={"lab-m": "Shown & said."}, hard="hard.png",
        )  # fmt: skip
        section = text[text.index("## Equal difficulty") : text.index("## Calibration text")]
        assert "- **lab-m**: Shown & said.\n" in section
        assert "(hard.png)" in section

    def test_figures_are_drawn_also_where_nothing_was_measured(self, early, tmp_path, monkeypatch):
        drawn = {name: paper_figures.FIGURES[name] for name in ("critical", "ladder", "modules")}
        monkeypatch.setattr(paper_figures, "FIGURES", drawn)
        names = paper_figures.write(early, tmp_path)
        assert sorted(names) == sorted(file.name for file in tmp_path.iterdir())
        assert len(names) == 3

    def test_a_star_marks_what_the_dense_model_would_not_score(self, early):
        rows = {(row[1], row[2]): row[3] for row in paper_claims.score_rows(early)}
        assert rows["sparsegpt", "0.9"].endswith("*")
        assert not rows["dense", "0"].endswith("*")

    @pytest.mark.parametrize("same", [0, 2])
    def test_a_star_is_about_all_seeds_of_its_mean(self, same):
        scores, task = Scores(), "lab_facts_closed"
        dense = {(task, item): float(item % 10 > 0) for item in range(ITEMS)}
        scores.add(Cell(), task, 0, dense, 0.0)
        for ratio, like_dense in ((0.5, None), (0.6, same)):
            for seed in range(3):
                lost = {item: 0.0 if seed != like_dense and item[1] % 3 else right for item, right in dense.items()}
                scores.add(Cell(pruner="wanda", ratio=ratio), task, seed, lost, 0.0)
        rows = {row[2]: row[3] for row in paper_claims.score_rows(scores) if row[1] == "wanda"}
        assert rows["0.5"].endswith("*")
        assert not rows["0.6"].endswith("*")


@pytest.mark.parametrize("grid", sorted((SCRIPTS / "reproduce_paper").glob("*/*.yaml")), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_grid_has_known_fields_and_all_grids_of_a_size_have_the_same_items(grid):
    fields = read_fields(grid)
    if grid.stem not in ("ranking", "difficulty"):
        assert fields["metadata"] == read_fields(grid.with_name("pruning.yaml"))["metadata"]
        assert fields["tasks"] == list(TASKS)
    of_several = {"ladder": ["lab-xs", "lab-s", "lab-s4"], "difficulty": ["lab-m", "lab-s4", "lab-s", "lab-xs"], "family": None}
    of_several |= dict.fromkeys(("bits", "bits-sparse", "bits-sizes"))
    assert fields.get("pretrained") == of_several.get(grid.stem, "lab-m")


def test_a_quick_grid_is_accepted_by_the_sweep(tmp_path):
    grid = SCRIPTS / "reproduce_paper" / "quick" / "modules.yaml"
    found = CliRunner().invoke(app, ["sweep", "--config", str(grid), "--out", str(tmp_path / "out"), "--dry-run"])
    assert found.exit_code == 0, found.output
    assert "5 trials" in found.output
    assert not (tmp_path / "out").exists()


def test_the_script_refuses_an_option_that_it_does_not_know():
    found = subprocess.run(["bash", str(SCRIPTS / "reproduce_paper.sh"), "--fast"], capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert "usage:" in found.stderr
