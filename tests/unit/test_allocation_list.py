"""The built-in allocation ``list``: what its file may say, and how that is read."""

from __future__ import annotations

import json

import pytest
from harness_ext_allocations.listed import Listed
from harness_ext_pruners.magnitude import Magnitude
from refusals import raises_line

from harness_ext import BadOptionError, LayerShape, Sparsity
from harness_ext.engine.allocate import allocate, check_allocation

NAMES = [f"model.layers.{block}.{name}" for block in range(2) for name in ("self_attn.q_proj", "mlp.up_proj", "mlp.down_proj")]
LAYERS = [LayerShape(name, int(name.split(".")[2]), "ffn", 8, 16) for name in NAMES]


class TestList:
    @pytest.fixture
    def listed(self, tmp_path):
        """Writes a file and returns the allocation that reads it."""

        def write(content, suffix=".json"):
            path = tmp_path / f"layers{suffix}"
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
            return Listed(path=str(path))

        return write

    def give(self, allocation, sparsity, layers=LAYERS):
        check_allocation(allocation, Magnitude(), Sparsity.parse(sparsity))
        return [str(value) for value in allocate(allocation, Magnitude(), Sparsity.parse(sparsity), layers, {}).values()]

    def test_a_list_has_an_entry_for_each_block(self, listed):
        assert self.give(listed([0.25, 0.75]), 0.5) == ["0.25"] * 3 + ["0.75"] * 3
        assert self.give(listed("- 0.25\n- '6:8'\n", ".yaml"), 0.5) == ["0.25"] * 3 + ["6:8"] * 3

    @pytest.mark.parametrize("suffix", [".json", ".yaml", ".yml"])
    def test_a_mapping_has_names_and_globs(self, listed, suffix):
        content = {"*.q_proj": 0.25, "model.layers.0.mlp.up_proj": "3:4", "model.layers.1.*": 0.5, "*": 0.5}
        expected = ["0.25", "3:4", "0.5", "0.25", "0.5", "0.5"]
        assert self.give(listed(content, suffix), 2.75 / 6) == expected

    def test_a_name_goes_before_a_glob_and_the_first_glob_before_the_others(self, listed):
        content = {"*.up_proj": 0.5, "*.0.*": 0.25, "*": 0.75, "model.layers.0.mlp.up_proj": 0.125}
        assert self.give(listed(content), (0.25 + 0.125 + 0.25 + 0.75 + 0.5 + 0.75) / 6) == ["0.25", "0.125", "0.25", "0.75", "0.5", "0.75"]

    def test_patterns_may_be_listed_where_a_pattern_was_asked_for_and_ratios_stand_for_it(self, listed):
        content = {"*.q_proj": "1:2", "*.up_proj": 0.25, "*": 0.75}
        assert self.give(listed(content), "2:4") == ["1:2", "1:4", "3:4"] * 2
        assert self.give(listed({"*.q_proj": 0, "*.up_proj": 0.75, "*": 0.75}), "2:4") == ["0", "3:4", "3:4"] * 2

    def test_a_ratio_that_is_none_of_the_pattern_is_an_error(self, listed):
        with raises_line(BadOptionError, "0.3", "model.layers.0.self_attn.q_proj", "sparsity=2:4", "1/4"):
            self.give(listed({"*.q_proj": 0.3, "*": 0.6}), "2:4")

    @pytest.mark.parametrize(("content", "ratio"), [([0.25, 0.625], "0.4375"), ([0.1, 0.2], "0.15"), (["1:4", "3:8"], "0.3125")])
    def test_another_total_is_an_error_that_says_what_to_ask_for(self, listed, content, ratio):
        allocation = listed(content)
        with raises_line(BadOptionError, "sparsity=0.5", f"sparsity={ratio}"):
            self.give(allocation, 0.5)
        self.give(allocation, float(ratio))

    def test_another_total_than_that_of_a_pattern_says_how_to_keep_to_patterns(self, listed):
        with raises_line(BadOptionError, "sparsity=2:4", "patterns of 4", "sparsity=0.375"):
            self.give(listed([0.25, 0.5]), "2:4")
        self.give(listed(["1:4", "2:4"]), 0.375)

    @pytest.mark.parametrize(
        ("content", "parts"),
        [
            ([0.5], ["1 entries", "2 blocks"]),
            ([0.5, 0.5, 0.5], ["3 entries", "2 blocks"]),
            ({"*.q_proj": 0.5}, ["model.layers.0.mlp.up_proj", "3 other"]),
            ({"*.[qd]*_proj": 0.5, "*.0.mlp.up_proj": 0.5}, ["model.layers.1.mlp.up_proj", "'*'"]),
            (
                {"*": 0.5, "model.layers.0.mlp.up_porj": 0.5},
                ["'model.layers.0.mlp.up_porj'", "Did you mean 'model.layers.0.mlp.up_proj'?"],
            ),
            ({"*": 0.5, "*.k_proj": 0.5}, ["'*.k_proj'"]),
            ({"*": 0.5, "lm_head": 0.5}, ["'lm_head'", "'model.layers.0"]),
            ({"*": 0.5, "model.layers.0": 0.5}, ["'model.layers.0'", "'model.layers.0.*'"]),
            (
                {"*": 0.5, "*.q_proj": 0.25},
                ["'*.q_proj'", "'*'"],
            ),
        ],
    )
    def test_entries_and_layers_must_fit_each_other(self, listed, content, parts):
        with raises_line(BadOptionError, "allocation.path='", *parts):
            self.give(listed(content), 0.5)

    @pytest.mark.parametrize(
        ("content", "suffix", "parts"),
        [
            ("{", ".json", ["JSON", "Expecting property name"]),
            ("a: [", ".yaml", ["YAML", "while parsing"]),
            ("*.q_proj: 0.5\n", ".yaml", ["YAML", "quote", "*"]),
            ("\xff", ".yaml", None),
            ("[" * 100_000, ".json", ["nested"]),
            ("", ".json", ["JSON"]),
            ("", ".yaml", ["list", "mapping"]),
            ("[]", ".json", ["list", "mapping"]),
            ("0.5", ".json", ["list", "mapping"]),
            ('{"*": 0.5, "*": 0.25}', ".json", ["'*'", "twice"]),
            ("'*': 0.5\n'*': 0.25\n", ".yaml", ["'*'", "twice"]),
            ("0: 0.5\n1: 0.5\n", ".yaml", ["key 0"]),
            ("- 2:4\n- 2:4\n", ".yaml", ["block 0", "sparsity=124", "YAML"]),
            ("'*.q_proj': 2:4\n", ".yaml", ["*.q_proj", "sparsity=124"]),
            (
                "[0.5, 50]",
                ".json",
                ["block 1", "sparsity=50", "0.5"],
            ),
            ("[0.5, null]", ".json", ["block 1", "sparsity=None"]),
            ("[0.5, true]", ".json", ["block 1", "sparsity=True"]),
            ("[0.5, NaN]", ".json", ["block 1", "sparsity=nan"]),
            ("[0.5, [0.5]]", ".json", ["block 1", "sparsity=[0.5]"]),
            ('{"*": {"ratio": 0.5}}', ".json", ["*", "sparsity={'ratio': 0.5}"]),
            ('{"*": "4:4"}', ".json", ["*", "sparsity=4:4"]),
            ("0.5", ".txt", [".json, .yaml, .yml"]),
        ],
    )
    def test_a_wrong_file_is_an_error_before_weights_are_loaded(self, listed, content, suffix, parts):
        allocation = listed(content, suffix)
        if parts is None:
            parts = ["UTF-8", "byte 0"]
            with open(allocation.path, "wb") as file:
                file.write(b"\xff\xfe")
        with raises_line(BadOptionError, "allocation.path='", *parts):
            check_allocation(allocation, Magnitude(), Sparsity(0.5))

    def test_a_file_must_be_named_and_exist(self, tmp_path):
        with raises_line(BadOptionError, "allocation=list", "allocation.path="):
            Listed().check(Magnitude())
        with raises_line(BadOptionError, "no-such.json'"):
            Listed(path=str(tmp_path / "no-such.json")).check(Magnitude())

    def test_zeros_are_left_out_where_the_others_add_up(self, listed):
        assert self.give(listed([0, 0.5]), 0.5) == ["0"] * 3 + ["0.5"] * 3
        assert self.give(listed([0, 0.5]), 0.25) == ["0"] * 3 + ["0.5"] * 3
        assert self.give(listed({"*.q_proj": 0, "*.up_proj": 0.25, "*": 0.75}), 0.5) == ["0", "0.25", "0.75"] * 2
        assert self.give(listed("- 0\n- '2:4'\n", ".yaml"), "2:4") == ["0"] * 3 + ["2:4"] * 3

    @pytest.mark.parametrize("content", [[0, 0], {"*": 0}, [0, 0.6]])
    def test_zeros_do_not_hide_another_total(self, listed, content):
        with raises_line(BadOptionError, "adds up to", "sparsity=0.5"):
            self.give(listed(content), 0.5)
