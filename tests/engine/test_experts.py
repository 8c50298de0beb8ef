"""Experts: where their matrices are, what they read, and what becomes of those that read nothing."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import experts
import oracle
import pytest
import tiny
import torch
import transformers
from experts import EXPERTS, FORMS, INNER, WIDTH, matrices, mixture, routed
from recording import Recording

from harness_ext import BadOptionError, CalibrationError, UnsupportedModelError, find_blocks, prune
from harness_ext.engine import walk
from harness_ext.engine.plan import make_plan
from harness_ext.plugins import Plugins

every_form = pytest.mark.parametrize("form", FORMS)
ROLES = {"flat": ("w1", "v1", "w2"), "listed": ("w1", "w3", "w2")}


def roles(form: str) -> tuple[str, str, str]:
    """What the gate, the up and the down projection of an expert are called."""
    return ROLES.get(form, ("gate_proj", "up_proj", "down_proj"))


def name_of(block: int, expert: int, role: str) -> str:
    return f"blocks.{block}.mlp.experts.{expert}.{role}"


@every_form
def test_each_matrix_of_an_expert_is_a_layer(form: str) -> None:
    model = mixture(form)
    layers = {layer.name: layer for block in find_blocks(model) for layer in block.layers}
    for block in range(2):
        for expert in range(EXPERTS):
            for role, matrix in zip(roles(form), matrices(model.blocks[block].mlp, expert), strict=True):
                layer = layers.pop(name_of(block, expert, role))
                assert layer.kind == "ffn"
                assert torch.equal(layer.weight, matrix)
                assert layer.in_features == matrix.shape[1]
                new = torch.randn(matrix.shape)
                layer.write(new)
                assert torch.equal(matrices(model.blocks[block].mlp, expert)[roles(form).index(role)], new)
    assert list(layers) == ["blocks.0.mixer", "blocks.1.mixer"]  # and no router


@every_form
def test_an_expert_is_measured_on_the_tokens_that_are_sent_to_it(form: str) -> None:
    dense, ids = mixture(form), tiny.token_ids(6)
    pruned, pruner = copy.deepcopy(dense), Recording()
    record = prune(pruned, pruner=pruner, sparsity=0.5, calibration=ids)
    partly = copy.deepcopy(dense)
    for block in range(2):
        inputs = routed(partly, block, ids)
        for expert in range(EXPERTS):
            for place, matrix in enumerate(matrices(dense.blocks[block].mlp, expert)):
                read = inputs[expert, "inner" if place == 2 else "hidden"]
                (_, hessian, tokens, _) = next(seen for seen in pruner.seen if torch.equal(seen[0], matrix))
                torch.testing.assert_close(hessian.double(), torch.from_numpy(oracle.hessian(read.numpy())), rtol=1e-4, atol=1e-5)
                assert tokens == len(read) == record["layers"][name_of(block, expert, roles(form)[place])]["tokens"]
        partly.blocks[block].load_state_dict(pruned.blocks[block].state_dict())


@every_form
@pytest.mark.parametrize("pruner", ["wanda", "sparsegpt"])
def test_experts_have_the_zeros_that_were_asked_for(form: str, pruner: str) -> None:
    model = mixture(form)
    record = prune(model, pruner=pruner, sparsity="2:4", calibration=tiny.token_ids(6))
    for block in range(2):
        for expert in range(EXPERTS):
            for role, matrix in zip(roles(form), matrices(model.blocks[block].mlp, expert), strict=True):
                assert bool(((matrix.reshape(-1, 4) == 0).sum(1) == 2).all())
                assert record["layers"][name_of(block, expert, role)]["zeros"] == matrix.numel() // 2
    assert record["achieved_sparsity"] == 0.5


@every_form
def test_all_tokens_reach_every_expert_where_that_was_asked_for(form: str) -> None:
    dense, ids = mixture(form), tiny.token_ids(6)
    model, pruner = copy.deepcopy(dense), Recording()
    if form == "at once":  # the same class, which is given the choice as well
        pytest.skip("multiplies rows of zeros, as Llama 4 does")
    record = prune(model, pruner=pruner, sparsity=0.5, calibration=ids, experts="all")
    assert record["plan"]["experts"] == record["experts"]["measured_on"] == "all"
    states: list[torch.Tensor] = []
    dense.blocks[0].mlp.register_forward_pre_hook(lambda _, args: states.append(args[0].reshape(-1, WIDTH)))
    with torch.no_grad():
        dense(ids)
    for expert in range(EXPERTS):
        gate, up, down = matrices(dense.blocks[0].mlp, expert)
        inner = torch.nn.functional.silu(states[0] @ gate.T) * (states[0] @ up.T)
        for matrix, read in ((gate, states[0]), (up, states[0]), (down, inner)):
            (_, hessian, tokens, _) = next(seen for seen in pruner.seen if torch.equal(seen[0], matrix))
            assert tokens == ids.numel()
            expected = torch.from_numpy(oracle.hessian(read.double().numpy()))
            torch.testing.assert_close(hessian.double(), expected, rtol=1e-4, atol=1e-5)


def test_what_experts_were_measured_on_decides_the_weights() -> None:
    ids = tiny.token_ids(6)
    one, other, same = (mixture() for _ in range(3))
    records = [
        prune(m, pruner="wanda", sparsity=0.5, calibration=ids, experts=e) for m, e in ((one, "routed"), (other, "all"), (same, "routed"))
    ]
    assert records[0]["fingerprint"] == records[2]["fingerprint"] != records[1]["fingerprint"]
    assert tiny.same(tiny.weights(one), tiny.weights(same))
    assert not tiny.same(tiny.weights(one), tiny.weights(other))


def test_the_choice_of_llama_4_cannot_be_changed() -> None:
    config = transformers.Llama4TextConfig(
        vocab_size=40, hidden_size=16, intermediate_size=24, intermediate_size_mlp=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, head_dim=8, num_local_experts=2, max_position_embeddings=64, bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    model = tiny.randomise(transformers.Llama4ForCausalLM(config)).eval()
    with pytest.raises(UnsupportedModelError, match=r"experts=all: .*feed_forward\.experts.*want experts=routed"):
        prune(model, pruner="wanda", sparsity=0.5, calibration=tiny.token_ids(), experts="all")


class TestIdle:
    @every_form
    @pytest.mark.parametrize("pruner", ["wanda", "sparsegpt", "dsnot"])
    def test_an_expert_without_tokens_is_pruned_by_magnitude_and_named(self, form: str, pruner: str) -> None:
        dense = mixture(form, idle=(1,))
        model = copy.deepcopy(dense)
        record = prune(model, pruner=pruner, sparsity="2:4", calibration=tiny.token_ids(6))
        idle = [name_of(block, 1, role) for block in range(2) for role in roles(form)]
        assert sorted(record["experts"]["pruned_by_magnitude"]) == sorted(idle)
        for block in range(2):
            for was, now in zip(matrices(dense.blocks[block].mlp, 1), matrices(model.blocks[block].mlp, 1), strict=True):
                expected = oracle.mask_of_groups(was.abs().double().numpy(), 2, 4)
                assert torch.equal(now == 0, torch.from_numpy(expected))
                assert torch.equal(now[now != 0], was[now != 0])

    def test_or_is_an_error(self) -> None:
        with pytest.raises(CalibrationError, match=r"blocks\.0\.mlp\.experts\.1\.gate_proj: no token .*experts=all") as error:
            prune(mixture(idle=(1,)), pruner="wanda", sparsity=0.5, calibration=tiny.token_ids(6), strict=True)
        assert "\n" not in str(error.value)

    def test_strict_says_nothing_where_all_experts_got_tokens(self) -> None:
        prune(mixture(), pruner="wanda", sparsity=0.5, calibration=tiny.token_ids(6), strict=True)

    def test_experts_with_few_tokens_are_named(self) -> None:
        ids = tiny.token_ids(6)
        record = prune(mixture(), pruner="wanda", sparsity=0.5, calibration=ids, min_expert_tokens=ids.numel() * 2)
        tokens = {name: entry["tokens"] for name, entry in record["layers"].items() if "tokens" in entry}
        assert record["experts"]["few_tokens"] == tokens
        least = min(tokens.values())
        record = prune(mixture(), pruner="wanda", sparsity=0.5, calibration=ids, min_expert_tokens=least + 1)
        assert set(record["experts"]["few_tokens"].values()) == {least}
        assert prune(mixture(), pruner="wanda", sparsity=0.5, calibration=ids, min_expert_tokens=least)["experts"]["few_tokens"] == {}

    @pytest.mark.parametrize("allocation", ["owl", "global"])
    def test_an_allocation_ranks_it_by_what_the_others_read(self, allocation: str) -> None:
        model = mixture(idle=(1,))
        record = prune(model, pruner="wanda", sparsity=0.5, calibration=tiny.token_ids(6), allocation=allocation)
        idle = [entry["achieved"] for name, entry in record["layers"].items() if ".experts.1." in name]
        assert len(idle) == 6
        assert all(0.1 < share < 0.9 for share in idle), idle

    def test_none_is_used_at_all(self) -> None:
        model = mixture()
        model.blocks[0].mlp.forward = lambda states: states
        with pytest.raises(UnsupportedModelError, match=r"blocks\.0\.mlp\.experts: no expert was used"):
            prune(model, pruner="wanda", sparsity=0.5, calibration=tiny.token_ids(6), modules="*experts*")


@pytest.mark.parametrize("form", ["plain", "flat", "listed"])
def test_in_order_all_gates_are_pruned_before_the_first_way_down_is_measured(form: str) -> None:
    dense, ids = mixture(form, blocks=1), tiny.token_ids(6)
    model, pruner = copy.deepcopy(dense), Recording()
    prune(model, pruner=pruner, sparsity=0.5, calibration=ids, true_sequential=True)
    mlp = dense.blocks[0].mlp
    by_value = [(matrix, role) for expert in range(EXPERTS) for role, matrix in zip("gud", matrices(mlp, expert), strict=True)]
    order = [role for weight, *_ in pruner.seen for matrix, role in by_value if torch.equal(weight, matrix)]
    assert sorted(order[: 2 * EXPERTS]) == ["g"] * EXPERTS + ["u"] * EXPERTS
    assert order[2 * EXPERTS :] == ["d"] * EXPERTS
    partly = copy.deepcopy(model)  # the way down is measured behind the pruned gates
    inputs = routed(partly, 0, ids)
    for expert in range(EXPERTS):
        down = matrices(dense.blocks[0].mlp, expert)[2]
        (_, hessian, _, _) = next(seen for seen in pruner.seen if torch.equal(seen[0], down))
        expected = torch.from_numpy(oracle.hessian(inputs[expert, "inner"].numpy()))
        torch.testing.assert_close(hessian.double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"true_sequential": True}, {"pruner": "sparsegpt"}, {"allocation": "owl"}], ids=str)
@pytest.mark.parametrize("form", ["plain", "listed"])
def test_how_many_experts_are_measured_at_once_makes_no_difference(
    form: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once, ids = mixture(form, idle=(1,)), tiny.token_ids(6)
    one_by_one = copy.deepcopy(at_once)
    options = {"pruner": "wanda"} | options
    record = prune(at_once, sparsity=0.5, calibration=ids, **options)
    monkeypatch.setattr(walk, "EXPERT_BYTES", 1)
    parts: list[int] = []
    original = walk.Walk._measure_part
    monkeypatch.setattr(walk.Walk, "_measure_part", lambda *args, **named: parts.append(len(args[2])) or original(*args, **named))
    again = prune(one_by_one, sparsity=0.5, calibration=ids, **options)
    assert tiny.same(tiny.weights(one_by_one), tiny.weights(at_once))
    assert again["fingerprint"] == record["fingerprint"]
    assert again["experts"] == record["experts"]
    assert len(parts) >= 2 * EXPERTS


class TestOfTransformers:
    CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {  # noqa: RUF012
        "mixtral": ("Mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
        "gpt-oss": ("GptOss", {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8}),
        "qwen3": ("Qwen3Moe", {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 12, "head_dim": 8}),
    }

    def build(self, name: str, **changes: Any) -> transformers.PreTrainedModel:
        family, own = self.CONFIGS[name]
        settings = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
        settings |= {"num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
        config = getattr(transformers, f"{family}Config")(**(settings | own | changes))
        return tiny.randomise(getattr(transformers, f"{family}ForCausalLM")(config)).eval()

    @pytest.mark.parametrize("name", CONFIGS)
    @pytest.mark.parametrize("implementation", ["eager", "grouped_mm", "batched_mm"])
    def test_every_implementation_gives_the_same_masks_and_stays_chosen(self, name: str, implementation: str) -> None:
        model, ids = self.build(name), tiny.token_ids(6)
        model.set_experts_implementation(implementation)
        record = prune(model, pruner="wanda", sparsity=0.5, calibration=ids, precision="float64")
        assert model.config._experts_implementation == implementation
        plain = self.build(name)
        plain.set_experts_implementation("eager")
        expected = prune(plain, pruner="wanda", sparsity=0.5, calibration=ids, precision="float64")
        assert tiny.same(tiny.weights(model), tiny.weights(plain))
        assert [entry.get("tokens") for entry in record["layers"].values()] == [
            entry.get("tokens") for entry in expected["layers"].values()
        ]

    @pytest.mark.parametrize("name", CONFIGS)
    def test_masks_of_experts_are_written_and_applied(self, name: str, tmp_path: Path) -> None:
        from harness_ext.weights.masks import save_masks

        dense = self.build(name)
        pruned = copy.deepcopy(dense)
        record = prune(pruned, pruner="wanda", sparsity=0.5, calibration=tiny.token_ids(6))
        save_masks(pruned, record, tmp_path / "masks")
        prune(dense, pruner="stored", sparsity=0.5, pruner_options={"path": str(tmp_path / "masks")})
        assert tiny.same(tiny.weights(dense), tiny.weights(pruned))

    def test_a_run_goes_on_where_it_was_killed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from harness_ext.engine.layerwise import _Layerwise

        options = {"pruner": "sparsegpt", "sparsity": 0.5, "calibration": tiny.token_ids(6)}
        whole, killed = self.build("mixtral"), self.build("mixtral")
        record = prune(whole, **options)
        original = _Layerwise.prune

        def fails_in_the_second(self: Any, stages: Any) -> None:
            if self.entries:
                raise KeyboardInterrupt
            original(self, stages)

        monkeypatch.setattr(_Layerwise, "prune", fails_in_the_second)
        with pytest.raises(KeyboardInterrupt):
            prune(killed, resume=tmp_path, **options)
        monkeypatch.undo()
        again = self.build("mixtral")
        resumed = prune(again, resume=tmp_path, **options)
        assert tiny.same(tiny.weights(again), tiny.weights(whole))
        assert resumed["fingerprint"] == record["fingerprint"]
        assert resumed["experts"] == record["experts"]

    @pytest.mark.parametrize("pruner", ["random", "magnitude", "wanda", "ria", "dsnot", "sparsegpt", "admm", "alps"])
    @pytest.mark.parametrize("sparsity", [0.5, "2:4"])
    def test_every_layerwise_pruner(self, pruner: str, sparsity: Any) -> None:
        model = self.build("qwen3")
        record = prune(model, pruner=pruner, sparsity=sparsity, calibration=tiny.token_ids(6))
        assert record["achieved_sparsity"] == 0.5
        assert len(record["layers"]) == 2 * (4 + 3 * 4)

    @pytest.mark.parametrize(("modules", "count"), [("attention", 8), ("ffn", 24), ("*.experts.2.*", 6), ("*.down_proj", 8)])
    def test_a_choice_of_modules_leaves_the_other_parts_of_a_parameter_alone(self, modules: str, count: int) -> None:
        dense = self.build("mixtral")
        model = copy.deepcopy(dense)
        record = prune(model, pruner="wanda", sparsity=0.5, calibration=tiny.token_ids(6), modules=modules)
        assert len(record["layers"]) == count
        for now, was in zip(find_blocks(model), find_blocks(dense), strict=True):
            for layer, before in zip(now.layers, was.layers, strict=True):
                if layer.name not in record["layers"]:
                    assert torch.equal(layer.weight, before.weight)

    def test_depth_takes_blocks_with_experts_out(self) -> None:
        model = self.build("mixtral", num_hidden_layers=4)
        record = prune(model, pruner="depth", sparsity=0.5, calibration=tiny.token_ids(6))
        assert record["decoder_layers"] == {"before": 4, "after": 2}

    def test_width_says_why_it_does_not(self) -> None:
        with pytest.raises(UnsupportedModelError, match=r"experts\.0\.gate_proj belongs to an expert: pruner 'width'"):
            prune(self.build("mixtral"), pruner="width", sparsity=0.5, calibration=tiny.token_ids(6))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"experts": "al"}, r"experts='al': want routed or all\. Did you mean 'all'\?"),
        ({"min_expert_tokens": -1}, "min_expert_tokens=-1"),
        ({"min_expert_tokens": 1.5}, "min_expert_tokens=1.5"),
        ({"strict": "yes"}, "strict='yes': want True or False"),
        ({"dense_limit": 2}, "dense_limit=2"),
        ({"dense_limit": "a"}, "dense_limit='a'"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadOptionError, match=message) as error:
        make_plan(Plugins(), sparsity=0.5, **options)
    assert "\n" not in str(error.value)


def test_the_forms_of_this_file_compute_the_same() -> None:
    """Or the tests above would compare the wrong things."""
    states, chosen, shares = torch.randn(7, WIDTH), torch.randint(EXPERTS, (7, 1)), torch.rand(7, 1)
    plain = experts.StackedExperts("plain")
    turned = experts.StackedExperts("transposed")
    turned.gate_up_proj.data = plain.gate_up_proj.data.mT.contiguous()
    turned.down_proj.data = plain.down_proj.data.mT.contiguous()
    flat = experts.StackedExperts("flat")
    flat.w1.data, flat.v1.data = (half.reshape(-1, WIDTH) for half in plain.gate_up_proj.data.chunk(2, 1))
    flat.w2.data = plain.down_proj.data.mT.reshape(EXPERTS * INNER, WIDTH)
    for other in (turned, flat):
        torch.testing.assert_close(other(states, chosen, shares), plain(states, chosen, shares))
