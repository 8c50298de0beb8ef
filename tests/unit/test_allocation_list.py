"""The built-in allocation ``list``: what its file may say, and how that is read."""

from __future__ import annotations

import json
import re

import pytest
from harness_ext_allocations.listed import Listed
from harness_ext_pruners.magnitude import Magnitude

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
        with pytest.raises(BadOptionError, match=r"0\.3 for model\.layers\.0\.self_attn\.q_proj with sparsity=2:4: want a multiple of 1/4"):
            self.give(listed({"*.q_proj": 0.3, "*": 0.6}), "2:4")

    @pytest.mark.parametrize(("content", "ratio"), [([0.25, 0.625], "0.4375"), ([0.1, 0.2], "0.15"), (["1:4", "3:8"], "0.3125")])
    def test_another_total_is_an_error_that_says_what_to_ask_for(self, listed, content, ratio):
        allocation = listed(content)
        with pytest.raises(BadOptionError, match=rf"adds up to {ratio} of the weights, not to sparsity=0\.5; say sparsity={ratio}$"):
            self.give(allocation, 0.5)
        self.give(allocation, float(ratio))

    def test_another_total_than_that_of_a_pattern_says_how_to_keep_to_patterns(self, listed):
        with pytest.raises(BadOptionError, match=r"write ratios as patterns of 4 and say sparsity=0\.375$"):
            self.give(listed([0.25, 0.5]), "2:4")
        self.give(listed(["1:4", "2:4"]), 0.375)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ([0.5], "the list has 1 entries, the layers to be pruned are in 2 blocks, 0 to 1"),
            ([0.5, 0.5, 0.5], "the list has 3 entries, the layers to be pruned are in 2 blocks, 0 to 1"),
            ({"*.q_proj": 0.5}, "no entry for model.layers.0.mlp.up_proj and 3 other layers"),
            ({"*.[qd]*_proj": 0.5, "*.0.mlp.up_proj": 0.5}, "no entry for model.layers.1.mlp.up_proj; a last entry '*'"),
            (
                {"*": 0.5, "model.layers.0.mlp.up_porj": 0.5},
                "is no layer to be pruned, nor a glob that matches one. Did you mean 'model.layers.0.mlp.up_proj'?",
            ),
            ({"*": 0.5, "*.k_proj": 0.5}, "'*.k_proj' is no layer to be pruned, nor a glob that matches one."),
            ({"*": 0.5, "lm_head": 0.5}, "'lm_head' is no layer to be pruned, nor a glob that matches one. The layers are 'model.layers.0"),
            ({"*": 0.5, "model.layers.0": 0.5}, "for all layers in it say 'model.layers.0.*'"),
            (
                {"*": 0.5, "*.q_proj": 0.25},
                "'*.q_proj' decides about no layer, since '*' goes before it there: put the narrower glob first",
            ),
        ],
    )
    def test_entries_and_layers_must_fit_each_other(self, listed, content, message):
        with pytest.raises(BadOptionError, match=re.escape(message)) as error:
            self.give(listed(content), 0.5)
        assert str(error.value).startswith("allocation.path='")
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize(
        ("content", "suffix", "message"),
        [
            ("{", ".json", "not JSON (Expecting property name"),
            ("a: [", ".yaml", "not YAML (while parsing"),
            ("*.q_proj: 0.5\n", ".yaml", "quote keys that begin with *"),
            ("\xff", ".yaml", None),
            ("[" * 100_000, ".json", "nested too deep"),
            ("", ".json", "not JSON"),
            ("", ".yaml", "want a list with an entry for each block, or a mapping"),
            ("[]", ".json", "want a list with an entry for each block, or a mapping"),
            ("0.5", ".json", "want a list with an entry for each block, or a mapping"),
            ('{"*": 0.5, "*": 0.25}', ".json", "the key '*' is there twice"),
            ("'*': 0.5\n'*': 0.25\n", ".yaml", "the key '*' is there twice"),
            ("0: 0.5\n1: 0.5\n", ".yaml", "the key 0 is not a text"),
            ("- 2:4\n- 2:4\n", ".yaml", "block 0: sparsity=124: want a ratio in [0, 1) such as 0.7, or a pattern such as 2:4. YAML reads"),
            ("'*.q_proj': 2:4\n", ".yaml", "*.q_proj: sparsity=124: "),
            (
                "[0.5, 50]",
                ".json",
                "block 1: sparsity=50: want a ratio in [0, 1) such as 0.7, or a pattern such as 2:4; for 50 percent say 0.5",
            ),
            ("[0.5, null]", ".json", "block 1: sparsity=None: want a ratio"),
            ("[0.5, true]", ".json", "block 1: sparsity=True: want a ratio"),
            ("[0.5, NaN]", ".json", "block 1: sparsity=nan: want a ratio"),
            ("[0.5, [0.5]]", ".json", "block 1: sparsity=[0.5]: want a ratio"),
            ('{"*": {"ratio": 0.5}}', ".json", "*: sparsity={'ratio': 0.5}: want a ratio"),
            ('{"*": "4:4"}', ".json", "n must be between 1 and m - 1"),
            ("0.5", ".txt", "want a file of JSON or YAML, with one of the suffixes .json, .yaml, .yml"),
        ],
    )
    def test_a_wrong_file_is_an_error_before_weights_are_loaded(self, listed, content, suffix, message):
        allocation = listed(content, suffix)
        if message is None:
            message = "not UTF-8 text (invalid start byte at byte 0)"
            with open(allocation.path, "wb") as file:
                file.write(b"\xff\xfe")
        with pytest.raises(BadOptionError, match=re.escape(message)) as error:
            check_allocation(allocation, Magnitude(), Sparsity(0.5))
        assert str(error.value).startswith("allocation.path='")
        assert "\n" not in str(error.value)

    def test_a_file_must_be_named_and_exist(self, tmp_path):
        with pytest.raises(BadOptionError, match=r"allocation=list wants allocation\.path=FILE"):
            Listed().check(Magnitude())
        with pytest.raises(BadOptionError, match=r"no-such\.json': no such file"):
            Listed(path=str(tmp_path / "no-such.json")).check(Magnitude())
