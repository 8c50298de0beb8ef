"""What a run demands of plugins: the contract of a pruner, and what surrounds it."""

from __future__ import annotations

import pytest
import tiny
import torch
from refusals import raises_line

from harness_ext import (
    BadOptionError,
    Calibration,
    CalibrationError,
    ChannelNorms,
    ModelPruner,
    NumericalError,
    PluginError,
    Pruned,
    Pruner,
    Sparsity,
    prune,
)
from harness_ext.engine.layers import find_blocks
from harness_ext.engine.layerwise import output_error

FIRST = "model.layers.0.self_attn.q_proj"


def zeroed(weight, sparsity):
    return weight.masked_fill(sparsity.mask(weight.abs()), 0)


def pruner(method, how, **attributes):
    """An instance of a pruner that overrides one method."""
    base = ModelPruner if method == "prune_model" else Pruner
    return type("Own", (base,), {"name": "own", method: how, **attributes})()


def spoil(weight, value):
    weight[0, 0] = value
    return weight


def wrong_places(self, weight, sparsity, statistic):
    """As many zeros as asked for, but not in every group."""
    new = weight.clone()
    new.view(-1)[: weight.numel() // 2] = 0
    return new


def writes(self, weight, sparsity, statistic):
    return weight.masked_fill_(sparsity.mask(weight.abs()), 0)


def writes_elsewhere(self, weight, sparsity, statistic):
    new = zeroed(weight, sparsity)
    weight += 1
    return new


VIOLATIONS = {
    "another shape": (
        0.5,
        pruner("prune", lambda self, weight, sparsity, statistic: weight[:, 1:]),
        PluginError,
        ["(16, 16)", "(16, 15)"],
    ),
    "transposed": (0.5, pruner("prune", lambda *a: torch.zeros(3, 1)), PluginError, ["(16, 16)", "(3, 1)"]),
    "nothing": (0.5, pruner("prune", lambda *a: None), PluginError, ["(16, 16)", "NoneType"]),
    "too few zeros": (0.5, pruner("prune", lambda self, weight, *_: weight.clone()), PluginError, ["sparsity 0.5", "128", "256", "0"]),
    "one zero too few": (
        0.5,
        pruner("prune", lambda self, weight, *_: weight.masked_fill(Sparsity(0.497).mask(weight.abs()), 0)),
        PluginError,
        ["127"],
    ),
    "too many zeros": (
        0.5,
        pruner("prune", lambda self, weight, *_: torch.zeros_like(weight)),
        PluginError,
        ["128", "256"],
    ),
    "not in the pattern": ("2:4", pruner("prune", wrong_places), PluginError, ["2 zeros in every 4"]),
    "NaN": (
        0.5,
        pruner("prune", lambda self, weight, sparsity, _: spoil(zeroed(weight, sparsity), float("nan"))),
        NumericalError,
        ["NaN or infinite"],
    ),
    "infinite": (
        0.5,
        pruner("prune", lambda self, weight, sparsity, _: zeroed(weight, sparsity) / 0.0),
        NumericalError,
        ["NaN or infinite"],
    ),
    "writes into the weight": (0.5, pruner("prune", writes), PluginError, ["wrote into"]),
    "writes into the weight after copying": (0.5, pruner("prune", writes_elsewhere), PluginError, ["wrote into"]),
    "notes that are not JSON": (
        0.5,
        pruner("prune", lambda self, weight, sparsity, _: Pruned(zeroed(weight, sparsity), {"mask": weight})),
        PluginError,
        ["notes", "JSON"],
    ),
}


@pytest.mark.parametrize("which", VIOLATIONS)
def test_a_breach_of_the_contract_is_an_error_that_names_pruner_layer_and_rule(which):
    sparsity, own, kind, parts = VIOLATIONS[which]
    with raises_line(kind, "pruner 'own'", FIRST, *parts):
        prune(tiny.model(), pruner=own, sparsity=sparsity)


SCORES = {
    "another shape": (lambda self, weight, _: weight[:1].abs(), PluginError, ["(16, 16)", "(1, 16)"]),
    "no tensor": (lambda self, weight, _: weight.abs().tolist(), PluginError, ["(16, 16)", "list"]),
    "NaN": (lambda self, weight, _: weight.log(), NumericalError, ["NaN"]),
}


@pytest.mark.parametrize("which", SCORES)
def test_wrong_scores_are_an_error_that_names_pruner_and_layer(which):
    score, kind, parts = SCORES[which]
    with raises_line(kind, "pruner 'own'", FIRST, *parts):
        prune(tiny.model(), pruner=pruner("score", score), sparsity=0.5)


def test_weights_beyond_what_the_models_dtype_can_hold_are_an_error():
    own = pruner("prune", lambda self, weight, sparsity, _: zeroed(weight, sparsity) * 1e6)
    prune(tiny.model(dtype=torch.bfloat16), pruner=own, sparsity=0.5)
    with raises_line(NumericalError, "NaN or infinite", "torch.float16"):
        prune(tiny.model(dtype=torch.float16), pruner=own, sparsity=0.5)


def test_zeros_that_were_there_may_come_on_top():
    model = tiny.model()
    model.model.layers[0].mlp.up_proj.weight.data[:, :4] = 0
    last = pruner("prune", lambda self, weight, sparsity, _: weight.masked_fill(sparsity.mask(-weight.abs()), 0))
    record = prune(model, pruner=last, sparsity=0.5)
    assert record["layers"]["model.layers.0.mlp.up_proj"]["zeros"] == 24 * 8 + 24 * 4


def test_a_chance_zero_in_a_large_matrix_is_no_breach():
    model = tiny.model(hidden_size=128, layers=1)
    own = pruner("prune", lambda self, weight, sparsity, _: weight.masked_fill(weight.abs() <= weight.abs().flatten().kthvalue(8193)[0], 0))
    record = prune(model, pruner=own, sparsity=0.5, modules="*.q_proj")
    assert record["layers"]["model.layers.0.self_attn.q_proj"]["zeros"] == 8193


def test_the_error_names_the_distribution_of_a_plugin(install_plugin):
    install_plugin("lazy-pruner", "from harness_ext import Pruner, hookimpl\nclass Lazy(Pruner):\n    name = 'lazy'\n"
                   "    def prune(self, weight, sparsity, statistic):\n        return weight\n"
                   "@hookimpl\ndef register_pruners(register):\n    register(Lazy)\n", version="3.1")  # fmt: skip
    with raises_line(PluginError, "'lazy'", "lazy-pruner 3.1", FIRST, "128"):
        prune(tiny.model(), pruner="lazy", sparsity=0.5)


def test_notes_are_recorded_and_cannot_pass_for_counts():
    own = pruner("prune", lambda self, weight, sparsity, _: Pruned(zeroed(weight, sparsity), {"zeros": 1, "rank": 3}))
    record = prune(tiny.model(), pruner=own, sparsity=0.5)
    assert {(entry["zeros"], entry["rank"]) for entry in record["layers"].values()} == {(128, 3), (192, 3)}


class TestPruneModel:
    """A pruner that treats the model as a whole."""

    @staticmethod
    def globally(calls=None):
        def prune_model(self, model, sparsity, calibration):
            if calls is not None:
                calls.append(calibration)
            weights = [layer.weight for block in find_blocks(model) for layer in block.layers]
            scores = torch.cat([weight.abs().flatten() for weight in weights])
            for weight, mask in zip(
                weights, Sparsity(sparsity.ratio).mask(scores[None])[0].split([w.numel() for w in weights]), strict=True
            ):
                weight.masked_fill_(mask.view(weight.shape), 0)

        return prune_model

    def test_may_spread_the_zeros_over_the_layers_as_it_likes(self):
        model = tiny.model()
        model.model.layers[0].mlp.up_proj.weight.data *= 0.01  # goes first
        record = prune(model, pruner=pruner("prune_model", self.globally()), sparsity=0.5)
        assert record["layers"]["model.layers.0.mlp.up_proj"]["achieved"] == 1
        assert record["achieved_sparsity"] == 0.5
        assert record["layers"]["model.layers.0.mlp.up_proj"]["zeros"] == 24 * 16

    @pytest.mark.parametrize("calibrated", [True, False])
    def test_gets_calibration_tokens_if_it_is_calibrated(self, calibrated):
        calls = []
        record = prune(
            tiny.model(),
            pruner=pruner("prune_model", self.globally(calls), calibrated=calibrated),
            sparsity=0.5,
            calibration=tiny.token_ids(),
        )
        if calibrated:
            assert calls[0].equal(tiny.token_ids())
        else:
            assert calls == [None]
        assert ("calibration" in record) == calibrated

    def test_that_does_nothing_is_an_error(self):
        with raises_line(PluginError, "pruner 'own'", "sparsity 0.5", "2176", "0"):
            prune(tiny.model(), pruner=pruner("prune_model", lambda *_: None), sparsity=0.5)

    def test_that_removes_all_is_an_error(self):
        def prune_model(self, model, sparsity, calibration):
            for block in find_blocks(model):
                for layer in block.layers:
                    layer.weight.zero_()

        with raises_line(PluginError, "pruner 'own'", "4352"):
            prune(tiny.model(), pruner=pruner("prune_model", prune_model), sparsity=0.5)

    def test_that_leaves_nan_is_an_error_that_names_the_layer(self):
        def prune_model(self, model, sparsity, calibration):
            model.model.layers[1].mlp.up_proj.weight.data[2, 2] = float("nan")

        with raises_line(NumericalError, "pruner 'own'", "model.layers.1.mlp.up_proj", "NaN"):
            prune(tiny.model(), pruner=pruner("prune_model", prune_model), sparsity=0.5)

    def test_whole_weights_of_each_row_are_enough(self):
        def by_row(self, model, sparsity, calibration):
            for block in find_blocks(model):
                for layer in block.layers:
                    layer.write(layer.weight.masked_fill(sparsity.mask(layer.weight.abs(), "row"), 0))

        record = prune(tiny.model(), pruner=pruner("prune_model", by_row), sparsity=0.3)  # 4 of 16 inputs, 7 of 24
        assert 0.25 <= record["achieved_sparsity"] < 0.29

    def test_is_held_to_a_pattern(self):
        with raises_line(PluginError, FIRST, "2 zeros in every 4"):
            prune(tiny.model(), pruner=pruner("prune_model", self.globally()), sparsity="2:4")

    def test_takes_no_choice_of_modules(self):
        with raises_line(BadOptionError, "modules='attention'", "'own'"):
            prune(tiny.model(), pruner=pruner("prune_model", self.globally()), sparsity=0.5, modules="attention")


class TestPruneTogether:
    def test_gets_the_layers_that_read_the_same_inputs(self):
        groups = []

        class Grouped(Pruner):
            name = "grouped"
            statistic = ChannelNorms

            def prune_together(self, weights, sparsities, statistic):
                groups.append([tuple(weight.shape) for weight in weights])
                return [zeroed(weight, sparsity) for weight, sparsity in zip(weights, sparsities, strict=True)]

        prune(tiny.model("llama-gqa-tied", layers=1), pruner=Grouped(), sparsity=0.5, calibration=tiny.token_ids())
        assert groups == [[(16, 16), (8, 16), (8, 16)], [(16, 16)], [(24, 16), (24, 16)], [(16, 24)]]

    def test_that_gives_back_too_few_is_an_error(self):
        own = pruner("prune_together", lambda self, weights, sparsities, statistic: [])
        with raises_line(PluginError, "pruner 'own'", FIRST, "prune_together"):
            prune(tiny.model(), pruner=own, sparsity=0.5)


class TestPrecision:
    def test_float64_reaches_weights_and_statistics(self):
        seen = set()

        def score(self, weight, statistic):
            seen.add((weight.dtype, statistic.norms.dtype))
            return weight.abs() * statistic.norms

        record = prune(
            tiny.model(dtype=torch.bfloat16), pruner=pruner("score", score, statistic=ChannelNorms), sparsity=0.5,
            calibration=tiny.token_ids(), precision="float64",
        )  # fmt: skip
        assert seen == {(torch.float64, torch.float64)}
        assert record["plan"]["precision"] == "float64"

    def test_another_is_refused(self):
        with raises_line(BadOptionError, "precision='float46'", "float32", "Did you mean 'float64'?"):
            prune(tiny.model(), sparsity=0.5, precision="float46")


def test_blocks_on_another_device_than_the_model_give_the_same_weights():
    """The only other device here is the CPU under another name; that the blocks are moved there and back is what is tested."""
    models = [tiny.model(), tiny.model()]
    prune(models[0], sparsity=0.5, calibration=tiny.token_ids())
    prune(models[1], sparsity=0.5, calibration=tiny.token_ids(), device="cpu:0")
    assert tiny.same(*map(tiny.weights, models))
    assert {parameter.device for parameter in models[1].parameters()} == {torch.device("cpu")}


def test_outside_the_run_nothing_is_on_the_other_device():
    """Calibration text is written by the model where it is, and only one block is away from there at any time."""
    model = tiny.model(layers=3)
    inside = {name: parameter for name, parameter in model.named_parameters() if ".layers." in name}
    home = {name: parameter.data_ptr() for name, parameter in inside.items()}
    away = []

    def score(self, weight, statistic):
        away.append({name.split(".")[2] for name, parameter in inside.items() if parameter.data_ptr() != home[name]})
        return weight.abs()

    prune(model, pruner=pruner("score", score, statistic=ChannelNorms), sparsity=0.5, calibration=tiny.token_ids(), device="cpu:0")
    layers = len(away) // 3
    assert away == [{number} for number in "012" for _ in range(layers)]
    assert home == {name: parameter.data_ptr() for name, parameter in inside.items()}


@pytest.mark.gpu
@pytest.mark.parametrize("pruner_name", ["wanda", "sparsegpt", "admm", "alps", "dsnot"])
def test_one_block_on_the_gpu_gives_the_weights_of_the_cpu_up_to_rounding(pruner_name):
    models = [tiny.model(layers=3), tiny.model(layers=3)]
    for model, device in zip(models, (None, "cuda"), strict=True):
        prune(model, pruner=pruner_name, sparsity=0.5, calibration=tiny.token_ids(), device=device)
    one, other = map(tiny.weights, models)
    for name in one:
        assert ((one[name] == 0) == (other[name] == 0)).float().mean() > 0.98
    assert {parameter.device for parameter in models[1].parameters()} == {torch.device("cpu")}


class TestCalibrationSources:
    """What a source of token ids may give back."""

    @pytest.mark.parametrize(
        ("ids", "parts"),
        [
            (tiny.token_ids().float(), ["int64", "torch.float32"]),
            (tiny.token_ids()[0], ["[samples, length]", "(12,)"]),
            ([[1, 2]], ["int64", "list"]),
            (tiny.token_ids() + 1, ["40", "vocabulary", "39"]),
            (tiny.token_ids(2, 40), ["40", "32"]),
        ],
    )
    def test_that_give_something_else_are_an_error_that_names_them(self, ids, parts):
        class Own(Calibration):
            name = "own"

            def input_ids(self, model, tokenizer):
                return ids

        with raises_line(CalibrationError, "calibration 'own'", *parts):
            prune(tiny.model(), sparsity=0.5, calibration=Own())

    def test_are_not_asked_by_pruners_without_a_statistic(self):
        class Own(Calibration):
            name = "own"

            def input_ids(self, model, tokenizer):
                raise ZeroDivisionError

        prune(tiny.model(), pruner="magnitude", sparsity=0.5, calibration=Own())


class TestOutputError:
    def test_is_the_relative_change_of_the_output(self):
        generator = torch.Generator().manual_seed(0)
        dense, pruned, inputs = (torch.randn(shape, generator=generator) for shape in [(5, 8), (5, 8), (100, 8)])
        expected = ((dense - pruned) @ inputs.T).square().sum() / (dense @ inputs.T).square().sum()
        assert output_error(dense, pruned, inputs.T @ inputs) == pytest.approx(expected.item(), rel=1e-5)

    @pytest.mark.parametrize("name", ["random", "wanda", "sparsegpt"])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_is_recorded_where_it_is_asked_for(self, name, dtype):
        model, ids = tiny.model(layers=1, dtype=dtype), tiny.token_ids()
        dense, inputs = model.model.layers[0].self_attn.q_proj.weight.detach().clone(), []
        hook = model.model.layers[0].self_attn.q_proj.register_forward_pre_hook(lambda _, args: inputs.append(args[0].flatten(0, 1)))
        model(input_ids=ids)
        hook.remove()
        record = prune(model, pruner=name, sparsity=0.5, calibration=ids, measure_error=True)
        change = (dense - model.model.layers[0].self_attn.q_proj.weight).double() @ inputs[0].double().T
        expected = change.square().sum() / (dense.double() @ inputs[0].double().T).square().sum()
        errors = {layer: entry["output_error"] for layer, entry in record["layers"].items()}
        assert errors["model.layers.0.self_attn.q_proj"] == pytest.approx(expected.item(), rel=1e-4)
        assert all(error > 0 for error in errors.values())
        assert len(errors) == 7

    def test_falls_from_random_over_magnitude_and_wanda_to_sparsegpt(self):
        """In the mean over the layers, on more tokens than there are inputs."""
        means = []
        for name in ("sparsegpt", "wanda", "magnitude", "random"):
            record = prune(tiny.model(layers=1), pruner=name, sparsity=0.5, calibration=tiny.token_ids(30, 30), measure_error=True)
            means.append(sum(entry["output_error"] for entry in record["layers"].values()))
        assert means == sorted(means)

    def test_does_not_change_what_is_done(self):
        models = [tiny.model(), tiny.model()]
        records = [
            prune(model, sparsity=0.5, calibration=tiny.token_ids(), measure_error=how)
            for model, how in zip(models, (True, False), strict=True)
        ]
        assert tiny.same(*map(tiny.weights, models))
        assert records[0]["fingerprint"] == records[1]["fingerprint"]

    def test_of_a_layer_without_output_is_zero(self):
        assert output_error(torch.ones(2, 2), torch.zeros(2, 2), torch.zeros(2, 2)) == 0
