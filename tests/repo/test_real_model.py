"""The page on a real model: what it says of simulated sweeps whose truth is known, and that its grids are sweeps."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from report_folders import change_results, ranked, with_dtype, write_trial
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import real_bits
import real_common
import real_model
from real_difficulty import COMPARED, difficulty_rows
from real_scores import OVERRIDE, RECALL, Way, read, whole_part

from harness_ext.statistics import holm
from harness_ext.sweep import load
from harness_ext.sweep.fields import read as read_fields

SCRIPTS = Path(__file__).parents[2] / "scripts"
ITEMS, CHOICES = 200, 16
DENSE = {"lre_closed_4shot": 0.7, "lre_open_2shot": 0.95, "lre_override_2shot": 0.9, "icl_words": 0.88}


def scores(task: str, ratio: float) -> list[int]:
    """An item of recall is lost between 0.1 and 0.3, one of the other tasks between 0.5 and 0.7."""
    rng = np.random.default_rng(sorted(DENSE).index(task))
    dense, lost_at = rng.random(ITEMS) < DENSE[task], rng.uniform(0.1, 0.3, ITEMS) + (0.0 if "closed" in task else 0.4)
    return (dense & (lost_at > ratio)).astype(int).tolist()


def answers() -> dict[str, list[dict[str, object]]]:
    """Choices without likelihoods, after a generated answer where a task asks for one."""
    given = {task: ([[math.nan, False]] * 2 if task == "icl_words" else [" a text", *([[math.nan, False]] * CHOICES)]) for task in DENSE}
    return {task: [{"id": f"{task[:3]}{item}", "filtered_resps": of_item} for item in range(ITEMS)] for task, of_item in given.items()}


def write_page(folder: Path, page: Path) -> None:
    """The command ``real_model.py``, in this process."""
    done = CliRunner().invoke(real_model.app, ["page", str(folder), "--page", str(page)])
    assert done.exit_code == 0, done.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real")
    options = {"answers": answers(), "pretrained": "smollm2-135m"}
    write_trial(folder / "pruning", {task: scores(task, 0.0) for task in DENSE}, **options)
    for seed in (0, 1):
        for ratio in (0.1, 0.2, 0.4, 0.6):
            write_trial(
                folder / "pruning", {task: scores(task, ratio) for task in DENSE}, f"{ratio:g}", pruner="wanda", seed=seed, **options
            )
    return folder


def test_override_asks_for_the_facts_that_the_dense_model_recalls(folder: Path) -> None:
    found = read([folder / "pruning"])
    assert set(found.abilities[OVERRIDE].dense) == {item for item, right in found.abilities[RECALL].dense.items() if right}
    assert found.abilities[RECALL].chance == 1 / CHOICES
    assert found.seeds() == 2


def test_a_trial_that_several_sweeps_have_counts_once(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "pruning", tmp_path / "again")
    once, twice = read([folder / "pruning"]), read([folder / "pruning", tmp_path / "again"])
    assert (twice.trials, twice.minutes) == (once.trials, once.minutes) == (9, once.minutes)


def test_only_sweeps_that_prune_all_layers_are_compared_at_equal_difficulty(folder: Path, quantised: Path, tmp_path: Path) -> None:
    write_trial(tmp_path / "ffn", {"icl_words": scores("icl_words", 0.2)}, "0.2", pruner="wanda", answers=answers(), modules="ffn")
    assert real_model.prunes_all_layers(load(folder / "pruning"))
    assert not real_model.prunes_all_layers(load(quantised))
    assert not real_model.prunes_all_layers(load(tmp_path / "ffn"))


def test_the_curve_is_the_mean_over_items_and_seeds(folder: Path) -> None:
    curve = read([folder / "pruning"]).abilities[RECALL].curve(Way("wanda"), RECALL)
    assert curve.sparsities == (0.0, 0.1, 0.2, 0.4, 0.6)
    expected = [np.mean(scores("lre_closed_4shot", ratio)) for ratio in curve.sparsities]
    assert np.mean(curve.values, axis=(0, 2)).tolist() == pytest.approx(expected)


def test_a_seed_that_was_not_measured_everywhere_is_left_out(tmp_path: Path) -> None:
    write_trial(tmp_path / "pruning", {"icl_words": scores("icl_words", 0.0)}, answers=answers())
    for seed, ratios in ((0, (0.1, 0.2, 0.4)), (1, (0.1,))):
        for ratio in ratios:
            write_trial(
                tmp_path / "pruning", {"icl_words": scores("icl_words", ratio)}, f"{ratio:g}", pruner="wanda", seed=seed, answers=answers()
            )
    results = read([tmp_path / "pruning"])
    curve = results.abilities["words"].curve(Way("wanda"), "words")
    assert curve.sparsities == (0.0, 0.1, 0.2, 0.4)
    assert len(curve.values) == results.seeds() == 1


@pytest.mark.parametrize(
    ("cells", "part"),
    [
        ({0.1: [0, 1, 2], 0.2: [0, 1, 2]}, ([0.1, 0.2], [0, 1, 2])),
        ({0.2: [2], 0.1: [0, 1, 2]}, ([0.1], [0, 1, 2])),
        ({0.1: range(30), 0.2: range(29)}, ([0.1, 0.2], [*range(29)])),
        ({0.1: [0, 1], 0.2: [0, 1], 0.3: [1], 0.4: [1], 0.5: [1, 2]}, ([0.1, 0.2, 0.3, 0.4, 0.5], [1])),
        ({0.1: [0, 1], 0.2: [1, 2], 0.3: [0, 1, 2], 0.4: [1, 2], 0.5: [0, 1]}, ([0.1, 0.3, 0.5], [0, 1])),
        ({0.2: [0, 1], 0.3: [0, 1], 0.4: [0], 0.5: [0]}, ([0.2, 0.3, 0.4, 0.5], [0])),  # as many as both seeds at two
    ],
)
def test_the_largest_part_of_a_grid_has_each_seed_at_each_sparsity(cells: dict[float, list[int]], part: object) -> None:
    assert whole_part(cells) == part


def test_a_curve_leaves_out_sparsities_for_seeds(tmp_path: Path) -> None:
    """Two seeds at two sparsities are more trials than one seed at three."""
    given = {"answers": answers(), "pruner": "wanda"}
    write_trial(tmp_path / "pruning", {"icl_words": scores("icl_words", 0.0)}, answers=answers())
    for seed, ratios in ((0, (0.1, 0.4, 0.6)), (1, (0.1, 0.6))):
        for ratio in ratios:
            write_trial(tmp_path / "pruning", {"icl_words": scores("icl_words", ratio)}, f"{ratio:g}", seed=seed, **given)
    results = read([tmp_path / "pruning"])
    curve = results.abilities["words"].curve(Way("wanda"), "words")
    assert (curve.sparsities, len(curve.values)) == ((0.0, 0.1, 0.6), 2)
    rows = {row[2]: row[4] for row in real_model.score_rows(results)}
    mean = f"{np.mean(scores('icl_words', 0.4)):.2f}"
    assert rows["0.4"] == mean  # without an interval
    assert "(" in rows["0.6"]


def test_models_without_all_seeds_have_no_place_at_equal_bits(folder: Path, quantised: Path) -> None:
    given = {"answers": answers(), "pruner": "gptq", "pretrained": "smollm2-135m", "bits": 3, "bits_of_model": 30_000}
    write_trial(quantised, {task: scores(task, 0.2) for task in DENSE}, "0.3", seed=0, **given)
    for seed in (0, 1, 2):
        write_trial(quantised, {task: scores(task, 0.2) for task in DENSE}, "0", seed=seed, **given)
    with_dtype(quantised.parent, "torch.float16")
    made = real_bits.points(read([folder / "pruning", quantised]))
    assert {point.amount for point in made if point.amount.startswith("3 bits")} == {"3 bits"}


def test_p_values_are_corrected_for_all_rows(folder: Path) -> None:
    rows = real_model.disparity_rows(read([folder / "pruning"]), [Way("wanda")])
    p_values = [float(row[-3]) for row in rows]
    assert [float(row[-2]) for row in rows] == pytest.approx(holm(p_values), rel=0.1)
    assert all((row[-1] == "not shown") == (float(row[-2]) > 0.05) for row in rows)
    assert any(row[-1] == "not shown" for row in rows) != all(row[-1] == "not shown" for row in rows)


def test_the_page_finds_the_split_that_is_there(folder: Path) -> None:
    page = folder / "page.md"
    write_page(folder, page)
    text = page.read_text(encoding="utf-8")
    for ability in ("reading", "override"):
        assert any(f"{ability} outlasts recall" in line for line in text.splitlines()), ability
    assert page.with_suffix(".png").stat().st_size < 300_000
    dense = next(line for line in text.splitlines() if line.startswith("| dense"))
    assert all(f"{np.mean(scores(task, 0.0)):.2f}" in dense for task in DENSE if "override" not in task)


@pytest.fixture
def quantised(folder: Path, tmp_path: Path) -> Path:
    """Beside the pruned models: 8 bits lose nothing, 4 bits a little of recall, and 2 bits all of it."""
    options = {"answers": answers(), "pretrained": "smollm2-135m", "pruner": "gptq"}
    for seed in (0, 1):
        for bits, like, ratio in ((8, 0.0, "0"), (4, 0.12, "0"), (2, 0.6, "0"), (4, 0.4, "0.5")):
            given = {task: scores(task, like) for task in DENSE}
            write_trial(tmp_path / "bits", given, ratio, seed=seed, bits=bits, bits_of_model=10_000 * bits, **options)
    for records in (folder, tmp_path):
        with_dtype(records, "torch.float16")
    return tmp_path / "bits"


def test_quantised_models_are_no_sparsities(folder: Path, quantised: Path) -> None:
    alone, both = read([folder / "pruning"]), read([folder / "pruning", quantised])
    for ability, found in both.abilities.items():
        pruned = {way: cells for way, cells in found.pruned.items() if way.bits is None}
        assert pruned == alone.abilities[ability].pruned
    assert {way.bits for way in both.abilities[RECALL].pruned} == {None, 2, 4, 8}
    assert real_bits.fewest_rows(alone) == []


def test_at_equal_bits_a_way_keeps_what_all_its_larger_models_keep(folder: Path, quantised: Path) -> None:
    found = read([folder / "pruning", quantised])
    rows = {row[0]: row[1:] for row in real_bits.fewest_rows(found)}
    assert rows["quantised, gptq"][0] == "0 M (8 bits)"  # recall; millions of bits
    assert rows["quantised, gptq"][3].endswith("(4 bits)")
    assert rows["pruned, wanda"][0].endswith("(0.1)")
    by_amount = {(point.line, point.amount): point for point in real_bits.points(found)}
    point = by_amount["quantised, gptq", "4 bits"]
    assert point.bits == 40_000
    right = np.mean(scores("lre_closed_4shot", 0.12))
    assert point.scores[RECALL].value == pytest.approx((right - 1 / CHOICES) / (1 - 1 / CHOICES))
    assert ("pruned and 4 bits, gptq", "4 bits, 0.5") in by_amount


def test_the_order_under_quantisation_is_told_in_bits(folder: Path, quantised: Path) -> None:
    given = {"answers": answers(), "pretrained": "smollm2-135m", "pruner": "rtn", "bits": 8, "bits_of_model": 80_000}
    write_trial(quantised, {task: scores(task, 0.0) for task in DENSE}, "0", **given)
    with_dtype(quantised.parent, "torch.float16")
    rows = {tuple(row[:2]): row[2:] for row in real_bits.quantised_rows(read([folder / "pruning", quantised]))}
    assert rows["gptq", "reading"][:2] == ["8 to 4", "4 to 2"]
    assert rows["gptq", "reading"][-1] == "reading outlasts recall"
    assert rows["rtn", "reading"][:2] == ["below 8", "below 8"]  # nothing was lost
    assert rows["rtn", "reading"][-1] == "not shown"
    p_values = [float(row[2]) for row in rows.values()]
    assert [float(row[3]) for row in rows.values()] == pytest.approx(holm(p_values), rel=0.1)
    assert real_bits.quantised_rows(read([folder / "pruning"])) == []


def test_the_page_has_a_section_at_equal_bits(folder: Path, quantised: Path, tmp_path: Path) -> None:
    (tmp_path / "pruning").symlink_to(folder / "pruning")
    write_page(tmp_path, tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "| quantised, gptq |" in text.partition("## At equal bits")[2].partition("\n## ")[0]
    assert "| gptq, 2 bits |" in text.partition("## All scores")[2]
    assert (tmp_path / "page-bits.png").stat().st_size > 1000


def test_what_the_grids_have_and_the_sweeps_have_not_is_said(folder: Path, tmp_path: Path) -> None:
    for name, text in (
        ("a", "pruner: [wanda, alps]\nsparsity: [0.1, 0.2]\nseeds: [0, 1]"),
        ("b", "pruner: wanda\nmodules: [ffn]\nsparsity: 0.1"),
        ("c", "pruner: gptq\nbits: [4]"),
        ("d", "pruner: wanda\nsparsity: 0.3:0.5:0.1\nseeds: 1"),
        ("e", "pruner: magnitude\nsparsity: 0.5\nseeds: [0, 1]"),
    ):
        (tmp_path / f"{name}.yaml").write_text(text)
    write_trial(tmp_path / "pruning", {"icl_words": scores("icl_words", 0.5)}, "0.5", pruner="magnitude", answers=answers())
    rows = real_model.not_measured(read([folder / "pruning", tmp_path / "pruning"]), tmp_path)
    assert rows == [
        ["alps", "all", "none"],
        ["gptq, 4 bits", "all", "none"],
        ["wanda", "0.3 and 0.5 with seed 1", "seeds 0 and 1 at 0.1, 0.2, 0.4 and 0.6"],
        ["wanda of ffn", "all", "none"],
    ]


def test_what_was_measured_whole_is_not_said_to_be_missing(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("pruner: wanda\nsparsity: [0.1, 0.2, 0.4, 0.6]\nseeds: [0, 1]")
    assert real_model.not_measured(read([folder / "pruning"]), tmp_path) == []


def test_perplexity_is_the_mean_over_seeds(tmp_path: Path) -> None:
    options = {"answers": answers(), "pretrained": "smollm2-135m"}
    for ratio, seed, value in (("0", None, 8.0), ("0.5", 0, 20.0), ("0.5", 1, 30.0)):
        folder = tmp_path / "apart" / f"{ratio}-{seed}"
        pruner = {} if seed is None else {"pruner": "wanda", "seed": seed}
        write_trial(folder, {task: scores(task, float(ratio)) for task in DENSE}, ratio, **pruner, **options)
        change_results(folder, lambda results, value=value: results.update(perplexity={"token_perplexity": value}))
    rows = real_model.score_rows(read(sorted((tmp_path / "apart").iterdir())))
    assert [row[-1] for row in rows] == ["8.0", "25.0"]


def test_an_ability_at_chance_has_no_critical_sparsity(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    values = (rng.random(ITEMS) < 1 / CHOICES / 2).astype(int).tolist()
    for ratio in ("0", "0.5"):
        write_trial(tmp_path / "pruning", {"lre_closed_4shot": values}, ratio, answers=answers())
    found = read([tmp_path / "pruning"])
    assert real_model.curves(found, Way("magnitude")) == {}
    assert real_model.score_rows(found)[1][4] == f"{np.mean(values):.2f}"


@pytest.mark.parametrize(("right", "measured"), [(0.27, False), (0.45, True)])
def test_who_names_any_value_of_the_prompt_looks_up_nothing(tmp_path: Path, right: float, measured: bool) -> None:
    values = (np.arange(ITEMS) < right * ITEMS).astype(int).tolist()
    shown = {"kv_4": [{"id": f"kv{item}", "filtered_resps": [0] * 16} for item in range(ITEMS)]}
    for ratio in ("0", "0.5"):
        write_trial(tmp_path / "pruning", {"kv_4": values}, ratio, answers=shown)
    found = read([tmp_path / "pruning"])
    assert found.abilities["lookup"].above_chance == measured
    assert list(real_model.curves(found, Way("magnitude"))) == ["lookup"] * measured


def test_no_dense_model_is_said(tmp_path: Path) -> None:
    write_trial(tmp_path / "pruning", {"lre_closed_4shot": [1] * ITEMS}, "0.5", answers=answers())
    with pytest.raises(ValueError, match="dense"):
        read([tmp_path / "pruning"])


@pytest.mark.parametrize("grid", sorted((SCRIPTS / "real_model").glob("*/*.yaml")), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_grid_is_a_sweep(grid: Path) -> None:
    assert read_fields(grid)["pretrained"] == "smollm2-135m"


@pytest.mark.parametrize("words", [[], ["--slow", "relations"], ["a", "b", "c"]])
def test_the_script_says_how_it_is_called(words: list[str]) -> None:
    ran = subprocess.run(["bash", str(SCRIPTS / "real_model.sh"), *words], capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert ran.stderr.startswith("usage:")


def write_with_margins(folder: Path) -> None:
    """Recall is lost between 0.1 and 0.3, and reading between 0.5 and 0.7, whatever the margin."""
    for ratio in (0.0, 0.1, 0.2, 0.4, 0.6):
        given = {task: scores(task, ratio) for task in DENSE}
        shown = {task: ranked(values, 2 if task == "icl_words" else CHOICES) for task, values in given.items()}
        with_ids = {
            task: [{**row, "id": f"{'icl' if task == 'icl_words' else 'fact'}{item}"} for item, row in enumerate(of_task)]
            for task, of_task in shown.items()
        }
        abilities = {task: {"ability": "recall" if "closed" in task else "in-context"} for task in DENSE}
        write_trial(folder, given, f"{ratio:g}", pruner="wanda", answers=with_ids, pretrained="smollm2-135m", metadata=abilities)


def test_recall_is_compared_with_each_ability_at_equal_difficulty(tmp_path: Path) -> None:
    write_with_margins(tmp_path / "pruning")
    scores_of = read([tmp_path / "pruning"]).abilities
    recalled = [item for item, right in scores_of[RECALL].dense.items() if right]
    rows = difficulty_rows([tmp_path / "pruning"], recalled, tmp_path / "picture.png", resamples=200)
    by_cell = {(row[1], row[2]): row for row in rows}
    assert {row[0] for row in rows} == {"wanda"}
    assert set(by_cell) == {(ability, drop) for ability in COMPARED for drop in ("5 %", "50 %")}
    for ability in ("reading", "override", "words"):
        assert by_cell[ability, "50 %"][5] == f"{ability} outlasts recall"
    effective = [float(count) for count in by_cell["override", "50 %"][6].split(" and ")]
    both = sum(scores_of[OVERRIDE].dense.values())
    assert effective[1] <= both < sum(scores("lre_override_2shot", 0.0)), "only facts that the dense model recalls count"
    assert (tmp_path / "picture.png").stat().st_size > 1000


def test_the_page_has_a_section_at_equal_difficulty_where_the_records_have_answers(tmp_path: Path) -> None:
    write_with_margins(tmp_path / "pruning")
    write_page(tmp_path, tmp_path / "page.md")
    section = (tmp_path / "page.md").read_text(encoding="utf-8").partition("## At equal difficulty")[2].partition("\n## ")[0]
    assert "| wanda | reading | 5 % |" in section
    assert (tmp_path / "page-difficulty.png").stat().st_size > 1000


def test_without_the_answers_of_the_dense_model_there_is_none(folder: Path, tmp_path: Path) -> None:
    assert difficulty_rows([folder / "pruning"], ["lre0"], tmp_path / "picture.png", resamples=200) == []
    assert not (tmp_path / "picture.png").exists()


def test_facts_with_the_commonest_answer_of_their_relation_are_told_apart(tmp_path: Path) -> None:
    """Relation a: two of three facts have one answer, of which the model knows one. Relation b: each answer once, the first counts."""
    told = {"a/1": ("x", 1), "a/2": ("y", 1), "a/3": ("x", 0), "b/1": ("u", 0), "b/2": ("v", 1)}
    rows = [{"id": item, "target": answer, "filtered_resps": [[-1.0, False]] * CHOICES} for item, (answer, _) in told.items()]
    right = [score for _, score in told.values()]
    tasks = ("lre_closed_4shot", "lre_open_2shot")
    write_trial(tmp_path / "sweep", dict.fromkeys(tasks, right), answers=dict.fromkeys(tasks, rows), pretrained="smollm2-135m")
    found = real_common.common_answers([tmp_path / "sweep"])
    assert found is not None
    assert (found.items, found.others) == ({"a/1", "a/3", "b/1"}, {"a/2", "b/2"})
    assert (found.share, found.recall, found.recall_of_others) == (3 / 5, 3 / 5, 1.0)
    assert found.recall_of_items == pytest.approx(1 / 3)
    left = real_common.without(read([tmp_path / "sweep"]), found.items)
    assert [set(left.abilities[name].dense) for name in ("recall", "reading")] == [{"a/2", "b/2"}] * 2


def test_without_relations_in_the_ids_no_answer_is_the_commonest(folder: Path) -> None:
    assert real_common.common_answers([folder / "pruning"]) is None
