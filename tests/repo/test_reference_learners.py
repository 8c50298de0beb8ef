"""The script that scores reference learners on the ICL tasks."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import typer

from harness_ext.tasks.icl import Options, item

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import reference_learners


def test_reference_learners_learn_from_the_exemplars_and_the_majority_label_does_not(capsys):
    reference_learners.main(items=40, mlp_items=20, tasks="icl_linear,icl_tree_k4", seed=0)
    header, _, *rows = capsys.readouterr().out.splitlines()
    assert re.findall(r"\(n=(\d+)\)", header) == ["40", "40", "20", "40", "40"]
    for row, task, chance in zip(rows, ("icl_linear", "icl_tree_k4"), (0.5, 0.25), strict=True):
        assert row.startswith(f"| `{task}` | {chance:.2f} | {chance:.3f} ± ")
        errors = [(float(score) - chance) / float(error) for score, error in re.findall(r"(\d\.\d{3}) ± (\d\.\d{3})", row)]
        assert len(errors) == 5
        assert min(errors[1:]) > 3
    with pytest.raises(typer.BadParameter, match="no task icl_lin; there are: icl_linear"):
        reference_learners.main(tasks="icl_lin")


def test_a_reference_learner_sees_the_exemplars_and_not_the_label_of_the_query():
    seen = []
    options = Options(items=4)
    reference_learners.score(lambda *arrays: seen.append(arrays) or 0, "tree", options, 4, "")
    for index, (points, labels, query) in enumerate(seen):
        doc = item("tree", options, index)
        assert [*points.tolist(), query.tolist()] == doc["points"]
        assert labels.tolist() == doc["labels"][:-1]
