"""``modules``: several kinds and globs, and exclusions, against a selection by hand."""

from __future__ import annotations

import re

import pytest
import tiny
from refusals import raises_line

from harness_ext import Allocation, BadOptionError, PluginError, find_blocks, prune
from harness_ext.engine.selection import parse_modules

FIRST_AND_LAST = "all+!model.layers.0.*+!model.layers.3.*"
CHOICES = {
    FIRST_AND_LAST: r"model\.layers\.[12]\.",
    "all,!model.layers.0.*,!model.layers.3.*": r"model\.layers\.[12]\.",
    "!model.layers.0.*": r"model\.layers\.[123]\.",
    "attention+!model.layers.0.*": r"model\.layers\.[123]\.self_attn\.",
    "ffn+!*.down_proj": r".*\.mlp\.(gate|up)_proj$",
    "all+!attention": r".*\.mlp\.",
    "*.q_proj+*.k_proj": r".*\.[qk]_proj$",
    "attention+ffn+!*.[0-2].*": r"model\.layers\.3\.",
    "*.q_proj + !model.layers.2.* + *.o_proj": r"model\.layers\.[013]\..*\.[qo]_proj$",
    "model.layers.1.mlp.up_proj": r"model\.layers\.1\.mlp\.up_proj$",
}
WRONG = {
    "all+": ["'all+'", "!model.layers.0.*"],
    "": ["''"],
    "!": ["'!'"],
    "all++ffn": ["'all++ffn'"],
    ",": ["','"],
    "all+!": ["'all+!'"],
    "all+!model.layers.9.*": ["'model.layers.9.*' matches no layer", "Did you mean"],
    "all+!model.layers.0": ["'model.layers.0' matches no layer", "'model.layers.0.*'"],
    "all+!atention": ["'atention' matches no layer", "Did you mean 'attention'?"],
    "*.q_proj+*.zzz": ["'*.zzz' matches no layer"],
    "attention+!attention": ["leave nothing"],
    "!all": ["leave nothing"],
    "model.layers.0.*+!*": ["leave nothing"],
}


def selected(model, modules) -> set[str]:
    return {layer.name for block in find_blocks(model, modules) for layer in block.layers}


@pytest.mark.parametrize(("modules", "pattern"), CHOICES.items(), ids=CHOICES)
def test_layers_that_are_left_out_stay_dense(modules: str, pattern: str) -> None:
    model = tiny.model(layers=4)
    before = {name: module.weight.detach().clone() for name, module in model.named_modules() if re.search(r"_proj$", name)}
    record = prune(model, pruner="magnitude", sparsity=0.5, modules=modules)
    expected = {name for name in before if re.match(pattern, name)}
    assert 0 < len(expected) < len(before)
    assert set(record["layers"]) == expected
    for name, weight in before.items():
        after = model.get_submodule(name).weight
        if name in expected:
            assert int((after == 0).sum()) == weight.numel() // 2
        else:
            assert after.equal(weight)
    assert record["achieved_sparsity"] == pytest.approx(0.5, abs=0.01)


def test_a_list_is_the_same_as_a_text() -> None:
    texts = [prune(tiny.model(layers=4), pruner="magnitude", sparsity=0.5, modules=modules) for modules in
             (FIRST_AND_LAST, FIRST_AND_LAST.replace("+", ","), FIRST_AND_LAST.split("+"), tuple(FIRST_AND_LAST.split("+")))]  # fmt: skip
    assert {record["plan"]["modules"] for record in texts} == {FIRST_AND_LAST}
    assert len({record["fingerprint"] for record in texts}) == 1


@pytest.mark.parametrize("kind", ["all", "attention", "ffn", "*.q_proj"])
def test_one_term_stands_in_the_record_as_it_was_typed(kind: str) -> None:
    assert parse_modules(kind) == kind


@pytest.mark.parametrize(("modules", "parts"), WRONG.items(), ids=WRONG)
def test_a_wrong_choice_is_one_line(modules: str, parts: list[str]) -> None:
    model = tiny.model(layers=4)
    before = tiny.weights(model)
    with raises_line(BadOptionError, "modules=", *parts):
        prune(model, pruner="magnitude", sparsity=0.5, modules=modules)
    assert tiny.same(tiny.weights(model), before)


@pytest.mark.parametrize("modules", [5, None, ["all", 5], [], ["all", ""]])
def test_what_is_no_text_is_one_line(modules: object) -> None:
    with raises_line(BadOptionError, "modules=", "want all, attention, ffn"):
        prune(tiny.model(), pruner="magnitude", sparsity=0.5, modules=modules)  # type: ignore[arg-type]


@pytest.mark.parametrize("pruner", ["width", "depth"])
def test_a_structured_pruner_takes_no_list(pruner: str) -> None:
    with raises_line(BadOptionError, "modules=", repr(pruner)):
        prune(tiny.model(layers=4), pruner=pruner, sparsity=0.5, modules=FIRST_AND_LAST, calibration=tiny.token_ids())


@pytest.mark.parametrize("allocation", ["uniform", "owl", "global"])
@pytest.mark.parametrize("sparsity", [0.5, "2:4"])
def test_an_allocation_spreads_the_sparsity_over_what_is_selected(allocation: str, sparsity: float | str) -> None:
    if allocation == "global" and sparsity == "2:4":
        pytest.skip("global spreads no pattern")
    record = prune(tiny.model(layers=4), pruner="wanda", sparsity=sparsity, modules=FIRST_AND_LAST, allocation=allocation,
                   calibration=tiny.token_ids())  # fmt: skip
    layers = record["layers"]
    assert {name.split(".")[2] for name in layers} == {"1", "2"}
    zeros, weights = (sum(layer[key] for layer in layers.values()) for key in ("zeros", "weights"))
    assert zeros / weights == pytest.approx(0.5, abs=0.04)  # at most one weight of each row of 16 or 24 less


class Protecting(Allocation):
    """Gives the first block nothing, and the others what was asked for, or another ratio."""

    name = "protecting"
    ratio: float | None = None

    def spread(self, sparsity, layers, measured):
        return {layer.name: 0.0 if layer.block == 0 else self.ratio or sparsity for layer in layers}


@pytest.mark.parametrize("sparsity", [0.5, "2:4"])
def test_what_an_allocation_leaves_out_stays_dense_and_does_not_count(sparsity: float | str) -> None:
    model = tiny.model(layers=2)
    before = tiny.weights(model)
    record = prune(model, pruner="magnitude", sparsity=sparsity, allocation=Protecting())
    after = tiny.weights(model)
    assert {name for name in before if not before[name].equal(after[name])} == {
        f"{name}.weight" for name in record["layers"] if name.startswith("model.layers.1.")
    }
    for name, entry in record["layers"].items():
        assert entry["achieved"] == (0.0 if name.startswith("model.layers.0.") else 0.5)


def test_the_ratio_may_also_be_that_of_all_layers() -> None:
    record = prune(tiny.model(layers=2), pruner="magnitude", sparsity=0.25, allocation=Protecting(ratio=0.5))
    assert record["achieved_sparsity"] == pytest.approx(0.25)


@pytest.mark.parametrize("sparsity", [0.5, "2:4"])
def test_what_is_left_out_does_not_hide_another_total(sparsity: float | str) -> None:
    with raises_line(PluginError, "'protecting'", "asked for"):
        prune(tiny.model(layers=2), pruner="magnitude", sparsity=sparsity, allocation=Protecting(ratio=0.75))
