"""Quantizers on tiny models: what is left of the weights, what the record says, and what is refused before weights are loaded."""

from __future__ import annotations

import math
import signal

import oracle_gptq
import pytest
import tiny
import torch
from experts import mixture
from refusals import raises_line

from harness_ext import BadOptionError, Grid, Hessian, NumericalError, PluginError, Quantized, Quantizer, find_blocks, prune
from harness_ext.engine.plan import make_plan, take_plan
from harness_ext.plugins import Plugins

QUANTIZERS = ("rtn", "gptq")
every_quantizer = pytest.mark.parametrize("pruner", QUANTIZERS)


def run(model=None, **arguments):
    model = tiny.model() if model is None else model
    record = prune(model, **({"calibration": tiny.token_ids(20), "measure_error": True} | arguments))
    return model, record


def layers(model):
    return {layer.name: layer for block in find_blocks(model) for layer in block.layers}


def logits(model):
    with torch.no_grad():
        return model(input_ids=tiny.token_ids(seed=3)).logits


@every_quantizer
@pytest.mark.parametrize("bits", [2, 3, 8])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_each_group_of_weights_is_on_a_grid(pruner, bits, name):
    model, record = run(tiny.model(name), pruner=pruner, bits=bits, pruner_options={"group_size": 8}, precision="float64")
    for layer in layers(model).values():
        for part in torch.split(layer.weight.double(), 8, dim=1):
            assert (part.sort(dim=1).values.diff(dim=1).ne(0).sum(1) + 1 <= 2**bits).all()
            width = part.amax(1).clamp(min=0) - part.amin(1).clamp(max=0)
            numbers = part[:, None] * (torch.arange(1, 2**bits) / width[:, None])[:, :, None]  # rows, steps, columns
            assert ((numbers - numbers.round()).abs().amax(2) < 1e-3).any(1).all()
    assert record["layers"].keys() == layers(model).keys()


def test_rounding_to_nearest_is_that_of_the_oracle():
    dense = layers(tiny.model())
    model, _ = run(pruner="rtn", bits=3, pruner_options={"group_size": 5}, precision="float64")
    for name, layer in layers(model).items():
        expected = oracle_gptq.nearest(dense[name].weight.double().numpy(), 3, 5)
        torch.testing.assert_close(layer.weight, torch.tensor(expected).float())


def test_embeddings_norms_and_the_head_stay_as_they_are():
    dense, (model, _) = tiny.model(), run(pruner="gptq", bits=2)
    changed = {name for name, parameter in model.named_parameters() if not parameter.equal(dense.get_parameter(name))}
    assert changed == {f"{name}.weight" for name in layers(model)}


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_gptq_has_a_smaller_error_than_rounding_to_nearest(bits):
    errors = {pruner: run(pruner=pruner, bits=bits)[1]["layers"] for pruner in QUANTIZERS}
    mean = {pruner: sum(entry["output_error"] for entry in entries.values()) for pruner, entries in errors.items()}
    assert mean["gptq"] < mean["rtn"]


@every_quantizer
def test_eight_bits_lose_next_to_nothing(pruner):
    model, record = run(pruner=pruner, bits=8)
    assert max(entry["output_error"] for entry in record["layers"].values()) < 1e-4
    dense = logits(tiny.model())
    assert (logits(model) - dense).norm() < 0.02 * dense.norm()


@every_quantizer
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_model_keeps_its_dtype(pruner, dtype):
    model, record = run(tiny.model(dtype=dtype), pruner=pruner, bits=4)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert record["quantisation"]["weights_in"] == str(dtype).removeprefix("torch.")
    assert record["quantisation"]["simulated"] is True


@every_quantizer
@pytest.mark.parametrize("sparsity", [0.29, "2:4"])
def test_what_was_asked_for_is_removed_and_rounding_counts_nothing(pruner, sparsity):
    model, record = run(pruner=pruner, bits=2, sparsity=sparsity)
    asked = 0.5 if sparsity == "2:4" else sparsity
    assert record["achieved_sparsity"] == pytest.approx(asked, abs=0.01)
    for name, layer in layers(model).items():
        entry = record["layers"][name]
        assert entry["zeros"] == math.floor(asked * entry["weights"] + 1e-9)
        assert int((layer.weight == 0).sum()) == entry["zeros"] + entry["rounded_to_zero"]
        if sparsity == "2:4":
            assert ((layer.weight.reshape(-1, 4) == 0).sum(1) >= 2).all()
    assert any(entry["rounded_to_zero"] for entry in record["layers"].values())


@every_quantizer
def test_without_a_sparsity_nothing_counts_as_removed(pruner):
    _, record = run(pruner=pruner, bits=2)
    assert record["achieved_sparsity"] == record["achieved_sparsity_of_model"] == 0
    assert {entry["asked"] for entry in record["layers"].values()} == {"0"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("sparsity", [0, 0.5, 0.1])
@pytest.mark.parametrize("group_size", [5, 8, "row", 128])
def test_the_bits_are_those_of_codes_masks_scales_and_zero_points(dtype, symmetric, sparsity, group_size):
    options = {"group_size": group_size, "symmetric": symmetric}
    model, record = run(tiny.model(dtype=dtype), pruner="rtn", bits=3, sparsity=sparsity, pruner_options=options)
    quantised, total = 0, 0
    for name, layer in layers(model).items():
        rows, inputs = layer.weight.shape
        codes = rows * inputs * 3
        if sparsity:
            codes = min(codes, (rows * inputs - math.floor(sparsity * rows * inputs)) * 3 + rows * inputs)
        groups = 1 if group_size == "row" else math.ceil(inputs / group_size)
        expected = codes + rows * groups * (16 if symmetric else 19)
        assert record["layers"][name]["stored_bits"] == expected
        assert record["layers"][name]["bits_a_weight"] == expected / (rows * inputs)
        quantised, total = quantised + rows * inputs, total + expected
    width = torch.finfo(dtype).bits
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert record["quantisation"]["bits_a_weight"] == total / quantised
    assert record["quantisation"]["bits_of_model"] == total + (parameters - quantised) * width
    assert record["quantisation"]["bits_a_parameter"] == record["quantisation"]["bits_of_model"] / parameters


def test_groups_in_another_order_count_the_number_of_each_input():
    without, by_order = (
        run(pruner="gptq", bits=3, pruner_options={"group_size": 5, "act_order": True, "static_groups": static})[1]
        for static in (True, False)
    )
    for name, entry in by_order["layers"].items():
        inputs = 24 if name.endswith("down_proj") else 16
        assert entry["stored_bits"] == without["layers"][name]["stored_bits"] + inputs * math.ceil(math.log2(math.ceil(inputs / 5)))


def test_fingerprints_tell_bits_and_options_apart():
    options = ({"group_size": 8}, {"act_order": True}, {"symmetric": True})
    asked = [
        {"pruner": "gptq", "bits": 4}, {"pruner": "gptq", "bits": 3}, {"pruner": "rtn", "bits": 4}, {"sparsity": 0},
        {"pruner": "gptq", "bits": 4, "sparsity": 0.5}, {"pruner": "gptq", "bits": 4, "true_sequential": True},
        *({"pruner": "gptq", "bits": 4, "pruner_options": option} for option in options),
    ]  # fmt: skip
    prints = [run(**arguments)[1]["fingerprint"] for arguments in asked]
    assert len(set(prints)) == len(prints)
    assert run(pruner="gptq", bits=4)[1]["fingerprint"] == prints[0]


@every_quantizer
def test_without_bits_and_sparsity_the_model_is_dense(pruner):
    model, record = run(pruner=pruner, bits=None)
    assert tiny.same(tiny.weights(model), tiny.weights(tiny.model()))
    assert record["fingerprint"] == run(sparsity=0)[1]["fingerprint"]
    assert "quantisation" not in record
    assert "bits" not in record["plan"]


def test_a_record_without_bits_has_nothing_about_them():
    _, record = run(pruner="sparsegpt", sparsity=0.5)
    assert "quantisation" not in record
    assert not {"bits", "stored_bits", "rounded_to_zero"} & record["layers"]["model.layers.0.mlp.up_proj"].keys()


def test_only_some_layers():
    model, record = run(pruner="gptq", bits=2, modules="ffn+!model.layers.0.*")
    changed = {name for name, layer in layers(model).items() if not layer.weight.equal(layers(tiny.model())[name].weight)}
    assert changed == record["layers"].keys() == {f"model.layers.1.mlp.{role}_proj" for role in ("gate", "up", "down")}


def test_in_order_each_layer_is_calibrated_behind_the_quantised_layers_before():
    at_once, in_order = (run(pruner="gptq", bits=2, true_sequential=order)[0] for order in (False, True))
    first = "model.layers.0.self_attn.q_proj"
    assert layers(at_once)[first].weight.equal(layers(in_order)[first].weight)
    last = "model.layers.0.mlp.down_proj"
    assert not layers(at_once)[last].weight.equal(layers(in_order)[last].weight)


def test_an_allocation_spreads_the_sparsity_and_not_the_bits():
    _, record = run(pruner="gptq", bits=4, sparsity=0.5, allocation="owl")
    assert len({entry["asked"] for entry in record["layers"].values()}) > 1
    assert {entry["bits"] for entry in record["layers"].values()} == {4}


class Stopping(Quantizer):
    """Rounds to nearest; is interrupted at the layer ``stop``."""

    name = "stopping"
    statistic = Hessian
    calls = 0
    stop = None

    def quantize(self, weight, bits, sparsity, statistic):
        type(self).calls += 1
        if type(self).calls == type(self).stop:
            raise KeyboardInterrupt
        return self.nearest(weight, bits, sparsity)


def test_a_run_that_was_interrupted_goes_on_with_the_same_bits(tmp_path):
    whole, expected = run(pruner=Stopping(), bits=3)
    Stopping.calls, Stopping.stop = 0, 9
    with pytest.raises(KeyboardInterrupt):
        run(pruner=Stopping(), bits=3, resume=tmp_path)
    Stopping.calls, Stopping.stop = 0, None
    model, record = run(pruner=Stopping(), bits=3, resume=tmp_path)
    assert Stopping.calls == 7  # the layers of the second block
    assert tiny.same(tiny.weights(model), tiny.weights(whole))
    assert record["quantisation"] == expected["quantisation"]
    assert signal.getsignal(signal.SIGINT) is not None


def test_experts_without_tokens_are_rounded_to_nearest():
    dense, model = layers(mixture(idle=(1,))), mixture(idle=(1,))
    _, record = run(model, pruner="gptq", bits=3, calibration=tiny.token_ids(6))
    idle = {name for name in record["layers"] if ".experts.1." in name}
    assert set(record["experts"]["rounded_to_nearest"]) == idle
    assert len(idle) == 6
    for name in idle:
        grid = Grid.of(dense[name].weight, 3)
        assert layers(model)[name].weight.equal(grid.values(grid.codes(dense[name].weight)))


def test_a_weight_that_is_not_finite_is_an_error():
    model = tiny.model()
    layers(model)["model.layers.1.mlp.up_proj"].weight[0, 0] = math.nan
    with raises_line(NumericalError, "up_proj", "NaN"):
        run(model, pruner="rtn", bits=4, measure_error=False)


class Wrong(Quantizer):
    """Returns what it is told to, made from a right result."""

    name = "wrong"

    def __init__(self, change):
        super().__init__()
        self.__dict__["change"] = change

    def quantize(self, weight, bits, sparsity, statistic):
        return self.__dict__["change"](self.nearest(weight, bits, sparsity))


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda right: right.codes, "want a harness_ext.Quantized"),
        (lambda right: right._replace(codes=right.codes[:, 1:]), "want codes of shape"),
        (lambda right: right._replace(scales=right.scales[:, :0]), "want scales of shape"),
        (lambda right: right._replace(zero_points=right.zero_points.T), "want zero_points of shape"),
        (lambda right: right._replace(codes=right.codes.float()), "want codes of an integer dtype"),
        (lambda right: right._replace(zero_points=right.zero_points + 0.5), "want zero_points of an integer dtype"),
        (lambda right: right._replace(codes=right.codes + 4), "want codes from 0 to 7"),
        (lambda right: right._replace(codes=right.codes.to(torch.int8) - 1), "want codes from 0 to 7"),
        (lambda right: right._replace(zero_points=right.zero_points + 8), "want zero_points from 0 to 7"),
        (lambda right: right._replace(scales=right.scales * 0), "finite and above 0"),
        (lambda right: right._replace(scales=right.scales / 0), "finite and above 0"),
        (lambda right: right._replace(scales=-right.scales), "finite and above 0"),
        (lambda right: right._replace(mask=None), "its mask has 0"),
        (lambda right: right._replace(mask=~right.mask), "a weight that its mask removes is not 0"),
        (lambda right: right._replace(mask=torch.zeros_like(right.mask)), "its mask has 0"),
        (lambda right: right._replace(mask=right.mask.float()), "want a mask of torch.bool"),
        (lambda right: right._replace(group_of=torch.ones(16, dtype=torch.int64)), "want group_of from 0 to 0"),
        (lambda right: right._replace(notes={"a": torch.ones(1)}), "not JSON"),
    ],
)
def test_a_result_that_breaks_the_contract_is_an_error(change, part):
    with raises_line(PluginError, "'wrong' broke its contract on model.layers.0.self_attn.q_proj", part):
        run(pruner=Wrong(change), bits=3, sparsity=0.5, measure_error=False)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({"bits": 4}, ["bits=4", "sparsegpt", "gptq", "rtn"]),
        ({"bits": 4, "pruner": "magnitude"}, ["bits=4", "magnitude", "gptq"]),
        ({"bits": 4, "pruner": "depth"}, ["bits=4", "depth", "gptq"]),
        ({"bits": 4, "pruner": "width"}, ["bits=4", "width", "gptq"]),
        ({"sparsity": 0.5, "pruner": "gptq"}, ["sparsity=0.5", "bits=4"]),
        ({"sparsity": "2:4", "pruner": "rtn"}, ["sparsity=2:4", "bits=4"]),
        ({"bits": 1, "pruner": "gptq"}, ["bits=1", "2 to 8"]),
        ({"bits": 16, "pruner": "gptq"}, ["bits=16", "2 to 8"]),
        ({"bits": True, "pruner": "gptq"}, ["bits=True", "2 to 8"]),
        ({"bits": 4.5, "pruner": "gptq"}, ["bits=4.5", "2 to 8"]),
        ({"bits": "4bit", "pruner": "gptq"}, ["bits='4bit'", "2 to 8"]),
        ({"bits": -4, "pruner": "rtn"}, ["bits=-4"]),
        ({"bits": [4], "pruner": "rtn"}, ["bits=[4]"]),
        ({"bits": 4, "pruner": "gptq", "allocation": "owl"}, ["allocation='owl'", "bits=4", "uniform"]),
        ({"bits": 4, "pruner": "gptq", "allocation": "global", "sparsity": 0.5}, ["allocation='global'", "gptq"]),
        ({"bits": 4, "pruner": "rtn", "true_sequential": True}, ["true_sequential", "rtn"]),
        ({"bits": 4, "pruner": "gptq", "pruner.group_size": -1}, ["group_size=-1", "row"]),
        ({"bits": 4, "pruner": "gptq", "pruner.group_size": "128x"}, ["group_size='128x'"]),
        ({"bits": 4, "pruner": "gptq", "pruner.groupsize": 64}, ["groupsize", "Did you mean 'group_size'"]),
        ({"bits": 4, "pruner": "gptq", "sparsity": "2:4", "pruner.act_order": True}, ["sparsity=2:4", "act_order"]),
        ({"bits": 4, "pruner": "gptq", "sparsity": 1.5}, ["sparsity=1.5"]),
        ({"bits": 4, "pruner": "gptqq"}, ["gptqq", "Did you mean 'gptq'"]),
        ({"pruner": "gptq", "bits": ""}, ["bits=''"]),
    ],
    ids=str,
)
def test_wrong_arguments_are_errors_of_one_line(arguments, parts):
    with raises_line(BadOptionError, *parts):
        take_plan(Plugins(), dict(arguments))


def test_the_plan_says_whether_it_changes_the_model():
    plugins = Plugins()
    for arguments, changes in (
        ({}, False), ({"sparsity": 0.5}, True), ({"pruner": "gptq"}, False), ({"pruner": "gptq", "bits": 4}, True),
        ({"pruner": "rtn", "bits": 8, "sparsity": 0.1}, True),
    ):  # fmt: skip
        plan = make_plan(plugins, **arguments)
        assert plan.changes is changes
        assert plan.needs_calibration is (changes and plan.pruner.name != "rtn")


def test_a_class_that_overrides_nothing_or_too_much_is_an_error():
    class Nothing(Quantizer):
        """Does nothing."""

        name = "nothing"

    class Both(Quantizer):
        """Scores, too."""

        name = "both"

        def quantize(self, weight, bits, sparsity, statistic):
            return Quantized(weight, weight, weight)

        def score(self, weight, statistic):
            return weight

    with raises_line(PluginError, "Nothing overrides none of quantize and quantize_together"):
        Nothing.check_class()
    with raises_line(PluginError, "Both overrides score", "harness_ext.Pruner"):
        Both.check_class()


@pytest.mark.parametrize(
    ("option", "meant"),
    [("desc_act", "act_order"), ("actorder", "act_order"), ("sym", "symmetric"), ("percdamp", "damping"), ("blocksize", "block_size")],
)
def test_names_of_other_tools_get_ours(option, meant):
    with raises_line(BadOptionError, repr(option), f"Did you mean '{meant}'"):
        prune(tiny.model(), pruner="gptq", bits=4, pruner_options={option: True})


def test_a_quantizer_is_found_by_its_name_in_capitals_and_wants_bits():
    with raises_line(BadOptionError, "'GPTQ'", "Did you mean 'gptq'"):
        prune(tiny.model(), pruner="GPTQ", bits=4)
    with raises_line(BadOptionError, "quantizer", "pruner=gptq,bits=4"):
        prune(tiny.model(), pruner="gptq", sparsity=0.5)


@pytest.mark.parametrize("width", [16, 24])
def test_a_group_size_of_0_is_one_group_a_row(width):
    quantizers = [Plugins().pruners.get("rtn")[0].from_options({"group_size": size}) for size in (0, "row")]
    assert [quantizer.groups_of(width) for quantizer in quantizers] == [1, 1]
