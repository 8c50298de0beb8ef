"""What the page on rare and frequent facts says, on simulated sweeps of known truth."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import exposure
from lab_mixture import Crowd, Mixture
from lab_settings import SIZES, Settings
from lab_tokenizer import build as build_tokenizer
from paper_family import DROPS, shown
from paper_scores import Cell, Scores
from train_family import UNEVEN, runs_of

from harness_ext.statistics import Curve
from harness_ext.tasks.people import population

SCRIPTS = Path(__file__).parents[2] / "scripts"
GRID = [round(0.05 * step, 2) for step in range(15)]
PEOPLE = 128


@pytest.fixture(scope="module")
def groups():
    """Each group of the second half was asked about twice as often as the one before it."""
    asked = np.full(PEOPLE, 150.0)
    asked[PEOPLE // 2 :] = np.repeat([20.0, 48.0, 96.0, 192.0, 384.0, 768.0, 1536.0, 3072.0], PEOPLE // 16)
    return exposure.groups_of(asked)


def curve(breaks: dict[str, float], known: dict[str, bool] | None = None) -> Curve:
    """A fact is lost whole beyond one sparsity."""
    rows = [[float((known is None or known[one]) and sparsity <= end) for one, end in breaks.items()] for sparsity in GRID]
    return Curve("recall", GRID, np.array(rows), list(breaks), 1 / 4096)


@pytest.fixture(scope="module")
def measured(groups):
    """Rare facts break 0.05 earlier with each group and the rarest are not known; in-context ability breaks at 0.55."""
    everyone = population(0)
    order = [person for group in groups[:-1] for person in group.people]
    level = {person: number for number, group in enumerate(groups[:-1]) for person in group.people}
    breaks, known = {}, {}
    for person in range(PEOPLE):
        for attribute in everyone.attributes:
            name = f"{attribute.name}/{everyone.memorised[person]}"
            breaks[name], known[name] = 0.1 + 0.05 * level.get(person, 2), level.get(person, 1) > 0
    assert len(order) == PEOPLE // 2
    recall = {seed: curve(breaks, known) for seed in "012"}
    in_context = {seed: [curve({str(item): 0.55 for item in range(40)}) for _ in exposure.CONTEXT] for seed in "012"}
    return exposure.rows_of(recall, in_context, groups)


def test_groups_hold_each_person_once_rare_ones_first_and_the_even_half_last(groups):
    assert sorted(person for group in groups for person in group.people) == list(range(PEOPLE))
    times = [group.times for group in groups[:-1]]
    assert times == sorted(times)
    assert groups[-1].people == tuple(range(PEOPLE // 2))


def test_a_group_that_is_not_known_has_no_critical_sparsity(measured):
    assert measured["rows"][0]["dense"].mean == 0
    assert not measured["rows"][0]["critical"]
    assert all(row["critical"] for row in measured["rows"][1:])


def test_critical_sparsities_lie_where_the_facts_break(measured):
    for number, row in enumerate(measured["rows"][1:-1], 1):
        at = row["critical"][0.5].mean
        assert 0.1 + 0.05 * number - 0.1 <= at <= 0.1 + 0.05 * number + 0.1


def test_the_slope_has_the_sign_of_the_truth(measured):
    for drop in DROPS:
        assert shown(measured["slopes"][drop]) == "shown"
        assert measured["slopes"][drop].mean == pytest.approx(0.05, abs=0.015)
        assert shown(measured["last"][drop]) == "shown"
        assert measured["last"][drop].mean == pytest.approx(0.55 - 0.4, abs=0.05)


def test_facts_that_were_not_measured_are_an_error(groups):
    with pytest.raises(ValueError, match="want all of them"):
        exposure.places_of(curve({"job/Nobody": 0.3}), groups[0])


def test_how_often_facts_are_asked_about_is_what_the_text_holds():
    """Counted from the text of a short run itself."""
    settings = Settings(**SIZES["lab-xs"], steps=120, reading_steps=40, people=64, slots=64, first_people=16, zipf=True)
    expected = exposure.times_asked(settings)
    everyone = population(0)
    tokenizer = build_tokenizer(everyone)
    mixture = Mixture(tokenizer, everyone, tokens=settings.micro_tokens, seed=0, crowd=Crowd(64, 64, zipf=True))
    names = {tuple(tokenizer(f" {person}")["input_ids"]): number for number, person in enumerate(everyone.memorised[:64])}
    counted = np.zeros(64)
    for step in range(settings.steps):
        options = {"people": people} if (people := settings.people_asked(step)) else {}
        for index in range(settings.kinds(step).count("facts")):
            for row in mixture.batch("facts", step, index, **options).ids.tolist():
                asked = None
                for place, pair in enumerate(pairwise(row)):
                    asked = names.get(pair, asked)
                    if pair[0] == mixture.before_value:
                        counted[asked] += (1 + (place + 2 < len(row))) / 2  # half where a row ends within the answer
    assert counted.sum() == pytest.approx(4 * expected.sum(), rel=0.02)
    for some in (slice(0, 16), slice(16, 32), slice(32, 36), slice(36, 64)):
        assert counted[some].sum() == pytest.approx(4 * expected[some].sum(), rel=0.08)


def test_the_page_has_a_row_for_each_group_and_the_figure_a_point_for_each_seed(measured):
    text = exposure.render(measured | {"steps": 9, "matched": matched_of(rare=0.2, frequent=0.5)}, "exposure.png")
    table = text.partition("## Critical sparsities")[2]
    assert table.count("\n| ") >= len(measured["rows"]) + 1
    figure = exposure.draw(measured)
    marks = [len(collection.get_offsets()) for axes in figure.axes for collection in axes.collections]
    points = sum(count for count in marks if count > 1)  # the band of in-context ability is no mark of a seed
    assert points == 3 * len(DROPS) * (len(measured["rows"]) - 1)


def matched_of(rare: float, frequent: float):
    """What the matching says of facts that break around these sparsities, with margins that do not depend on it."""
    asked = np.concatenate([np.full(PEOPLE // 2, 150.0), np.full(PEOPLE // 4, 64.0), np.full(PEOPLE // 4, 512.0)])
    everyone, scores, margins = population(0), Scores(), {}
    for seed in range(3):
        name, rng = f"lab-xs-zipf-{seed}/model", np.random.default_rng(seed)
        ends, margins[name] = {}, {}
        for person in range(PEOPLE // 2, PEOPLE):
            for attribute in everyone.attributes:
                one = f"{attribute.name}/{everyone.memorised[person]}"
                ends[one] = (rare if asked[person] < 128 else frequent) + rng.uniform(-0.1, 0.1)
                margins[name][one] = rng.uniform(1, 9)
        for sparsity in GRID:
            cell = Cell(name, "sparsegpt", sparsity) if sparsity else Cell(name)
            scores.add(cell, exposure.RECALL, 0, {one: float(sparsity <= end) for one, end in ends.items()}, 1 / 16)
    return exposure.matched(scores, margins, asked)


def test_facts_of_equal_margin_are_told_apart_where_they_differ_and_only_there():
    (_, half) = matched_of(rare=0.2, frequent=0.5)
    assert half.disparity.finding != "not shown"
    assert half.disparity.difference == pytest.approx(0.3, abs=0.05)
    assert "frequent facts" in half.sentence()
    (_, half) = matched_of(rare=0.35, frequent=0.35)
    assert half.disparity.finding == "not shown"


def test_the_facts_asked_about_are_all_that_the_models_were_told_and_those_that_are_matched(tmp_path):
    outcome = CliRunner().invoke(exposure.app, ["facts", str(tmp_path)])
    assert outcome.exit_code == 0, outcome.output
    recall, ranking = (json.loads((tmp_path / f"{name}.json").read_text())["known"] for name in ("recall", "ranking"))
    (_, settings), *_ = runs_of(["zipf"], [], [0], exposure.STEPS).values()
    assert len(set(recall)) == len(recall) == 4 * settings.people == 4 * UNEVEN
    assert len(set(ranking)) == len(ranking)
    assert set(ranking) < set(recall[len(recall) // 2 :])


def test_a_folder_that_cannot_be_is_refused():
    found = subprocess.run(["bash", str(SCRIPTS / "exposure.sh"), "--fast"], capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert "usage" in found.stderr
