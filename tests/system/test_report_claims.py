"""The headline statements of a report: over trained models where there are several, and corrected for their number."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from report_folders import CONTEXT, RECALL, falling, rows, write_trial
from typer.testing import CliRunner

from harness_ext.commands.cli import app
from harness_ext.report import ReportError, report
from harness_ext.report.abilities import classify
from harness_ext.report.analysis import Analysis, analyse
from harness_ext.report.claims import Claim, claims
from harness_ext.report.page_tables import lost
from harness_ext.report.reading import read
from harness_ext.report.words import headline
from harness_ext.statistics import Curve, disparity, disparity_over_models, holm

pytestmark = pytest.mark.usefixtures("quick_figures")

MODELS = ("one", "two", "three")
KEPT = {0.3: 0.97, 0.6: 0.5, 0.8: 0.1}


def write(folder: Path, **options: object) -> dict[str, dict[float, list[int]]]:
    """Three models, each pruned by two methods; the recall of each."""
    recall = {}
    for number, model in enumerate(MODELS):
        recall[model] = falling(200, 0.9, KEPT, seed=number)
        for sparsity in RECALL:
            for pruner in ("magnitude", "random") if sparsity else ("magnitude",):
                given = {"lab_facts_closed": recall[model][sparsity], "icl_linear": CONTEXT[sparsity]}
                write_trial(folder, given, f"{sparsity:g}", pretrained=model, dense=model, pruner=pruner, **options)
    return recall


def analysed(folder: Path, groups: object = ()) -> Analysis:
    trials, gaps = read([folder])
    return analyse(trials, classify(trials), drops=(0.05,), resamples=400, groups=groups, gaps=gaps)


def test_the_model_is_the_unit_where_replicates_are_given(tmp_path: Path) -> None:
    recall = write(tmp_path)
    done = analysed(tmp_path, [MODELS])
    assert [claim.label.partition(" over")[0] for claim in done.claims] == ["magnitude", "random"]
    ids = list(map(str, range(200)))
    curves = {
        model: (
            [Curve("lab_facts_closed", list(RECALL), [values[s] for s in RECALL], ids, 0.25)],
            [Curve("icl_linear", list(RECALL), [CONTEXT[s] for s in RECALL], [f"c{name}" for name in ids], 0.5)],
        )
        for model, values in recall.items()
    }
    wanted = disparity_over_models(curves, drop=0.05, corrected=True, resamples=400)
    found = done.claims[0].found
    assert (found.models, found.finding) == (MODELS, wanted.finding)
    assert found.low == pytest.approx(wanted.low)
    assert found.high is wanted.high is None
    assert "3 trained models" in done.claims[0].sentence()


def test_without_replicates_every_statement_is_of_one_model(tmp_path: Path) -> None:
    write(tmp_path)
    done = analysed(tmp_path)
    assert len(done.claims) == 6
    assert all("of this model" in claim.sentence() for claim in done.claims)
    assert done.over_models == {}


def test_models_outside_of_the_group_keep_their_own_statement(tmp_path: Path) -> None:
    write(tmp_path)
    labels = [claim.label for claim in analysed(tmp_path, [MODELS[:2]]).claims]
    assert len(labels) == 4
    assert sum("over 2 trained models" in label for label in labels) == 2
    assert sum(label.startswith("three, ") for label in labels) == 2


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ([["one", "tow"]], ["--replicates", "'tow'", "Did you mean 'two'?"]),
        ([["one"]], ["--replicates one", "at least two"]),
        ([["one", "two"], ["two", "three"]], ["--replicates", "'two' is named twice"]),
    ],
)
def test_a_group_that_is_none_is_refused_in_one_line(tmp_path: Path, groups: list[list[str]], said: list[str]) -> None:
    write(tmp_path)
    with pytest.raises(ReportError) as caught:
        analysed(tmp_path, groups)
    assert all(part in str(caught.value) for part in said)
    assert "\n" not in str(caught.value)


def test_the_statements_are_corrected_for_their_number_and_both_values_are_shown(tmp_path: Path) -> None:
    write(tmp_path)
    done = analysed(tmp_path)
    assert [claim.holm for claim in done.claims] == pytest.approx(holm([claim.p for claim in done.claims]))
    for claim in done.claims:
        told = done.disparities[claim.label, 0.05, True]
        assert claim.found is told
        assert (claim.p <= 0.05) == told.shown
        assert f"{claim.p:#.2g}" in claim.sentence()
        assert f"{claim.holm:#.2g}" in claim.sentence()


@pytest.mark.parametrize(("p", "words"), [(0.1, "0.10"), (0.0004, "0.00040"), (1.0, "1.0"), (0.0523, "0.052")])
def test_a_p_value_has_two_significant_digits(p: float, words: str) -> None:
    found = disparity(*[[Curve(name, list(RECALL), list(RECALL.values()))] for name in ("recall", "context")], drop=0.05, resamples=200)
    told = Claim("a method", found, p, p, 2, 1e-6).p_words()
    assert told.startswith(f"p = {words}, {words} with")


def test_what_is_shown_alone_may_not_be_shown_among_many() -> None:
    curves = [[Curve(name, list(values), list(values.values()))] for name, values in (("recall", RECALL), ("context", CONTEXT))]
    found = disparity(*curves, drop=0.05, resamples=400)
    assert found.shown
    made = [("a method", found, lambda level: level <= 0.98), *[("equal", found, lambda level: False)] * 9]
    first = claims(made, 400)[0]
    assert first.p == pytest.approx(0.02, rel=0.02)
    assert first.holm == pytest.approx(10 * first.p)
    assert not first.shown
    assert "it is not shown that" in first.sentence()
    assert "After the correction" in first.sentence()
    assert "it is not shown" not in claims(made[:1], 400)[0].sentence()
    assert claims(made[:1], 400)[0].shown


def test_the_command_writes_the_statement_over_models(tmp_path: Path) -> None:
    write(tmp_path / "run")
    ran = CliRunner().invoke(app, ["report", str(tmp_path / "run"), "--replicates", ",".join(MODELS), "--resamples", "200"])
    assert ran.exit_code == 0, ran.output
    folder = tmp_path / "run" / "report"
    over = [row for row in rows(folder, "disparity") if row["models"] == "3" and row["drop"] == "0.05" and row["corrected"] == "True"]
    assert [row["statements"] for row in over] == ["2", "2"]
    assert all(float(row["p"]) <= float(row["p_holm"]) for row in over)
    text = (folder / "index.html").read_text(encoding="utf-8")
    heading = text[text.index("<h1>") : text.index("</h1>")]
    assert "Over 3 trained models" in heading
    assert f"--replicates {','.join(MODELS)}" in text


def test_headline_table_and_comparison_have_the_verdict_after_the_correction(tmp_path: Path) -> None:
    """Four methods, each shown by its own test with p = 0.035."""
    fates = {"0.3": (0.7, 1.0), "0.6": (0.3, 0.8), "0.9": (0.2, 0.1)}
    items = 200
    write_trial(tmp_path, {"lab_facts_closed": [1] * items, "icl_linear": [1] * items})
    for pruner in ("magnitude", "random", "wanda", "ria"):
        for sparsity, kept in fates.items():
            recall, context = ([1] * round(items * part) + [0] * (items - round(items * part)) for part in kept)
            write_trial(tmp_path, {"lab_facts_closed": recall, "icl_linear": context}, sparsity, pruner=pruner)
    trials, _ = read([tmp_path])
    alone = [trial for trial in trials if trial.is_dense or trial.plan["pruner"] == "wanda"]
    for chosen, shown in ((alone, True), (trials, False)):
        done = analyse(chosen, classify(chosen), drops=(0.05,), resamples=400)
        assert all(claim.p <= 0.05 for claim in done.claims)
        assert [claim.shown for claim in done.claims] == [shown] * len(done.claims)
        table = lost(done, 0.05)
        assert table is not None
        assert {row[-1] for row in table.rows} == {"recall" if shown else "not shown"}
        assert ("which of the two fails first is not shown" in headline(done, 0.05).sentence) == (not shown)
        assert all(("it is not shown that" in claim.sentence()) == (not shown) for claim in done.claims)


def test_over_models_the_verdict_after_the_correction_is_said() -> None:
    ids = list(map(str, range(200)))
    models = {
        f"m{number}": (
            [Curve("recall", list(values), list(values.values()), ids)],
            [Curve("context", list(CONTEXT), list(CONTEXT.values()), ids)],
        )
        for number, values in enumerate(falling(200, 0.9, {0.3: 0.5, 0.6: 0.3, 0.8: 0.1}, seed=seed) for seed in range(3))
    }  # fmt: skip
    found = disparity_over_models(models, drop=0.05, resamples=400)
    assert found.shown
    assert "it is not shown that" not in found.sentence()
    assert found.sentence(shown=True) == found.sentence()
    assert "it is not shown that" in found.sentence(shown=False)


def methods(folder: Path, kept: dict[str, dict[str, float]]) -> Analysis:
    """Methods with the share of both abilities that each keeps, by sparsity."""
    write_trial(folder, {"lab_facts_closed": [1] * 200, "icl_linear": [1] * 200})
    for pruner, by_sparsity in kept.items():
        for sparsity, share in by_sparsity.items():
            scores = [1] * round(200 * share) + [0] * (200 - round(200 * share))
            write_trial(folder, {"lab_facts_closed": scores, "icl_linear": scores}, sparsity, pruner=pruner)
    return analysed(folder)


def test_a_method_is_called_the_one_that_keeps_most_only_where_it_is_shown(tmp_path: Path) -> None:
    lossless = {"0.3": 1.0, "0.5": 1.0}
    longer = lossless | {"0.7": 0.2, "0.9": 0.1}
    short = headline(methods(tmp_path / "short", {"wanda": lossless, "magnitude": longer}), 0.05)
    assert not any("the method that keeps most" in note for note in short.notes)
    assert any("it keeps most is not shown" in note for note in short.notes)
    worse = {"0.3": 0.2, "0.5": 0.1}
    clear = headline(methods(tmp_path / "clear", {"wanda": lossless, "magnitude": worse | {"0.7": 0.1, "0.9": 0.1}}), 0.05)
    assert clear.label == "wanda"
    assert any("the method that keeps most" in note for note in clear.notes)
    hidden = headline(methods(tmp_path / "hidden", {"wanda": {"0.3": 0.5}, "magnitude": longer}), 0.05)
    assert hidden.label == "magnitude"


def test_the_page_has_no_empty_points_and_says_what_is_corrected(tmp_path: Path) -> None:
    for sparsity in ("0", "0.5"):
        write_trial(tmp_path, {"lab_facts_closed": RECALL[0.0]}, sparsity)
    text = report([tmp_path], resamples=200).page.read_text(encoding="utf-8")
    assert not re.search(r"<li><b>[^<]*</b>:\s*</li>", text)
    assert "At other drops" not in text
    limits = text.partition('id="limits"')[2]
    assert "Nothing is corrected" not in limits
    assert "Holm" in limits
    assert "rebuilt" not in text
