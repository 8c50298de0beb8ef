"""What a sweep is asked for, and the trials that this makes; nothing is loaded."""

from __future__ import annotations

import pytest

from harness_ext import BadOptionError
from harness_ext.errors import UnknownNameError
from harness_ext.plugins import Plugins
from harness_ext.sweep.fields import read, sweep_from
from harness_ext.sweep.grid import trials
from harness_ext.sweep.sparsities import parse_sparsities

PLUGINS = Plugins()


def grid(**fields):
    return trials(
        sweep_from({"pretrained": ["lab-xs"], "tasks": ["icl_linear"], "sparsity": ["0.5"], "pruner": ["magnitude"]} | fields), PLUGINS
    )


def labels(**fields):
    return [str(trial) for trial in grid(**fields)]


class TestSparsities:
    @pytest.mark.parametrize(
        ("given", "ratios"),
        [
            (["0:0.9:0.1"], [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]),
            (["0:0.9:0.2"], [0, 0.2, 0.4, 0.6, 0.8]),
            (["0.5:0.5:1"], [0.5]),
            (["0.1, 0.25", 0.5], [0.1, 0.25, 0.5]),
            ([0, ".5"], [0, 0.5]),
        ],
    )
    def test_ranges_hold_their_end_and_are_exact_in_decimal(self, given, ratios):
        assert [sparsity.ratio for sparsity in parse_sparsities(given)] == ratios

    def test_two_numbers_are_a_pattern_and_three_a_range(self):
        assert [str(sparsity) for sparsity in parse_sparsities(["2:4,0:0.5:0.25,4:8"])] == ["2:4", "0", "0.25", "0.5", "4:8"]

    @pytest.mark.parametrize(
        ("typo", "says"),
        [
            ("0.5,0,6", "0 is given twice|sparsity"),
            ("0.5;0.6", "want a ratio such as 0.5"),
            ("0.1:0.5", "want a ratio such as 0.5, a pattern such as 2:4, or start:stop:step"),
            ("0.5,", "''"),
            ("0..5", "want a ratio"),
            ("1e400", "sparsity"),
            ("nan", "want a ratio"),
            ("0:0.9:0", "the step must be above 0"),
            ("0.9:0:0.1", "the stop at or above the start"),
            ("0:0.9:1e-9", "the most is 1000"),
            ("0:x:0.1", "three numbers"),
            ("0:inf:0.1", "three numbers"),
            ("0:1:0.1", "want a ratio in"),
            ("4:2", "n must be between 1 and m - 1"),
            ("50", "for 50 percent say 0.5"),
            ("0.5,0.50", "0.5 is given twice"),
            ("0:0.9:0.1,0.3", "0.3 is given twice"),
        ],
    )
    def test_a_typo_is_named(self, typo, says):
        with pytest.raises(BadOptionError, match=says) as error:
            parse_sparsities([typo])
        assert "\n" not in str(error.value)

    def test_an_integer_that_yaml_made_of_a_pattern_is_recognised(self):
        with pytest.raises(BadOptionError, match="YAML reads an unquoted 2:4"):
            parse_sparsities([124])


class TestTrials:
    def test_the_dense_model_is_among_them_once_per_model(self):
        found = labels(pretrained=["lab-xs", "lab-s"], pruner=["magnitude", "random"], sparsity=["0:0.5:0.5"])
        assert found == [
            "lab-xs dense", "lab-xs magnitude 0.5", "lab-xs random 0.5", "lab-s dense", "lab-s magnitude 0.5", "lab-s random 0.5",
        ]  # fmt: skip
        assert labels(sparsity=["0.5"]) == ["lab-xs dense", "lab-xs magnitude 0.5"]

    def test_seeds_and_sources_multiply_what_reads_text_and_nothing_else(self, tmp_path):
        text = tmp_path / "text.txt"
        text.write_text("some text")
        found = labels(pruner=["magnitude", "wanda"], seeds=["0,1"], calibration=["self", str(text)])
        assert found == [
            "lab-xs dense",
            "lab-xs magnitude 0.5",
            "lab-xs wanda 0.5 self seed 0",
            "lab-xs wanda 0.5 self seed 1",
            f"lab-xs wanda 0.5 {text} seed 0",
            f"lab-xs wanda 0.5 {text} seed 1",
        ]

    def test_an_option_goes_to_the_methods_that_take_it(self):
        found = {trial.plan.pruner.name: trial for trial in grid(pruner=["magnitude", "sparsegpt"], options=["pruner.block_size=64"])[1:]}
        assert found["sparsegpt"].arguments["pruner.block_size"] == 64
        assert "pruner.block_size" not in found["magnitude"].arguments

    def test_the_arguments_say_all_that_lm_eval_must_be_told(self):
        trial = grid(
            pruner=["wanda"], modules=["ffn"], allocation=["owl"], seeds=["3"], options=["calibration.samples=8"], precision="float64",
            dtype="bfloat16",
        )[1]  # fmt: skip
        assert trial.arguments == {
            "pretrained": "lab-xs", "pruner": "wanda", "sparsity": 0.5, "modules": "ffn", "allocation": "owl", "calibration": "self",
            "precision": "float64", "calibration.samples": 8, "calibration.seed": 3, "dtype": "bfloat16",
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("fields", "says"),
        [
            ({"pruner": []}, "--pruner: nothing given"),
            ({"tasks": []}, "--tasks: nothing given"),
            ({"tasks": [""]}, "--tasks: an empty name"),
            ({"sparsity": []}, "--sparsity: nothing given"),
            ({"pretrained": ["lab-xs", "lab-xs"]}, "--pretrained: lab-xs is given twice"),
            ({"pruner": ["wanda,wanda"]}, "--pruner: wanda is given twice"),
            ({"seeds": ["1,1"]}, "--seeds: 1 is given twice"),
            ({"pruner": ["magnitud"]}, "Did you mean 'magnitude'"),
            ({"allocation": ["unifrom"]}, "Did you mean 'uniform'"),
            ({"calibration": ["selv"]}, "Did you mean 'self'"),
            ({"options": ["pruner.blocksize=64"], "pruner": ["sparsegpt"]}, "no pruner of this sweep takes it. Did you mean 'block_size'"),
            ({"options": ["blocksize=64"]}, "--option blocksize=64"),
            ({"options": ["calibration.seed=1"], "seeds": [1]}, "given twice"),
            ({"seeds": ["-1"]}, "whole numbers"),
            ({"limit": -1}, "--limit -1"),
            ({"limit": 1.5}, "--limit 1.5"),
            ({"batch_size": "many"}, "--batch-size many"),
            ({"dtype": "float31"}, "Did you mean 'float32'"),
            ({"device": "gpu?"}, "--device"),
            ({"metadata": "{"}, "not JSON"),
            ({"metadata": "[1]"}, "JSON object"),
            ({"precision": "float16"}, "precision='float16'"),
            ({"pruner": ["depth"], "sparsity": ["2:4"]}, "want a ratio such as 0.5"),
        ],
    )
    def test_what_cannot_be_is_one_line(self, fields, says):
        with pytest.raises(BadOptionError, match=says.replace("?", r"\?").replace("[", r"\[")) as error:
            grid(**fields)
        assert "\n" not in str(error.value)

    def test_an_unknown_pruner_is_an_unknown_name(self):
        with pytest.raises(UnknownNameError):
            grid(pruner=["nothing"])


class TestFile:
    def test_has_the_fields_of_the_command_line(self, tmp_path):
        path = tmp_path / "sweep.yaml"
        path.write_text(
            "pretrained: [lab-xs, lab-s]\npruner: magnitude\nsparsity: [0:0.2:0.1, 2:4, 0.75, 1e-1]\ntasks: icl_linear,icl_tree\n"
            "seeds: [0, 1]\noptions: {calibration.samples: 8}\nmetadata: {icl_items: 32}\nlimit: 16\nbatch_size: 8\nout: runs/x\n"
        )
        with pytest.raises(BadOptionError, match=r"--sparsity: 0.1 is given twice"):
            sweep_from(read(path))
        path.write_text(path.read_text().replace(", 1e-1", ""))
        sweep = sweep_from(read(path))
        assert [str(sparsity) for sparsity in sweep.sparsity] == ["0", "0.1", "0.2", "2:4", "0.75"]
        assert (sweep.pretrained, sweep.tasks, sweep.seeds) == (("lab-xs", "lab-s"), ("icl_linear", "icl_tree"), (0, 1))
        assert (sweep.options, sweep.metadata, sweep.limit, sweep.batch_size) == ({"calibration.samples": 8}, {"icl_items": 32}, 16, "8")

    def test_reads_what_yaml_calls_numbers_of_base_60_as_they_are_written(self, tmp_path):
        path = tmp_path / "sweep.yaml"
        path.write_text("sparsity:\n- 2:4\n- 4:8\n- 0:0:0.5\n")
        assert read(path)["sparsity"] == ["2:4", "4:8", "0:0:0.5"]

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            ("sparsty: 0.5", "no field 'sparsty'. Did you mean 'sparsity'"),
            ("- 0.5", "want a mapping"),
            ("a: [", "not YAML"),
            ("", "want a mapping"),
        ],
    )
    def test_a_mistake_in_it_is_named(self, tmp_path, content, says):
        path = tmp_path / "sweep.yaml"
        path.write_text(content)
        with pytest.raises(BadOptionError, match=says):
            sweep_from(read(path))

    def test_must_exist(self, tmp_path):
        with pytest.raises(BadOptionError, match="No such file"):
            read(tmp_path / "none.yaml")

    def test_what_is_missing_is_named(self):
        with pytest.raises(BadOptionError, match="--tasks: nothing given: want it on the command line or in the file"):
            sweep_from({"pretrained": "lab-xs", "sparsity": 0.5})
