"""The walk through the blocks, against plain forward passes with hooks, on every supported architecture."""

from __future__ import annotations

import copy
from typing import ClassVar

import oracle
import pytest
import tiny
import torch
from refusals import raises_line
from torch import nn
from transformers import DynamicCache, GPT2LMHeadModel, LlamaConfig, PreTrainedModel

from harness_ext import Hessian, Pruner, Sparsity, prune
from harness_ext.engine import walk
from harness_ext.engine.layers import find_blocks
from harness_ext.errors import UnsupportedModelError

architecture = pytest.mark.parametrize("name", tiny.ARCHITECTURES)


class Tokens(Hessian):
    """A Hessian of which all instances are counted."""

    made: ClassVar[list[Tokens]] = []

    def __init__(self, in_features, device, dtype):
        super().__init__(in_features, device, dtype)
        self.made.append(self)


class Recording(Pruner):
    """Prunes by magnitude, and notes what it was given."""

    name = "recording"
    statistic = Tokens
    given: ClassVar[list[tuple[torch.Tensor, Hessian]]] = []

    def prune(self, weight, sparsity, statistic):
        self.given.append((weight.clone(), statistic))
        return weight.masked_fill(sparsity.mask(weight.abs()), 0)


class Failing(Recording):
    """Raises at the second layer."""

    name = "failing"

    def prune(self, weight, sparsity, statistic):
        if len(self.given) == 1:
            raise ZeroDivisionError
        return super().prune(weight, sparsity, statistic)


@pytest.fixture(autouse=True)
def nothing_recorded():
    Tokens.made.clear()
    Recording.given.clear()


def names(model):
    return [layer.name for block in find_blocks(model) for layer in block.layers]


def inputs_by_hooks(model, layers, ids):
    """What reaches each linear layer in a plain forward pass: float64 [tokens, inputs]."""
    found = {}

    def listen(layer):
        def hook(_, args):
            found[layer] = args[0].detach().double().flatten(0, -2)

        return hook

    handles = [model.get_submodule(layer).register_forward_pre_hook(listen(layer)) for layer in layers]
    with torch.no_grad():
        model(input_ids=ids)
    for handle in handles:
        handle.remove()
    return found


def partly_pruned(dense, pruned, layers, upto):
    """The dense model with the pruned weights of the first ``upto`` blocks."""
    model, depth = copy.deepcopy(dense), len(find_blocks(dense))
    per_block = len(layers) // depth
    for layer in layers[: upto * per_block]:
        model.get_submodule(layer).load_state_dict(pruned.get_submodule(layer).state_dict())
    return model, layers[upto * per_block : (upto + 1) * per_block]


def check_against_hooks(dense, pruned, ids):
    layers = names(dense)
    assert len(Recording.given) == len(layers)
    depth = len(find_blocks(dense))
    for block in range(depth):
        model, own = partly_pruned(dense, pruned, layers, block)
        for layer, inputs in inputs_by_hooks(model, own, ids).items():
            weight, statistic = Recording.given[layers.index(layer)]
            torch.testing.assert_close(statistic.matrix.double(), torch.from_numpy(oracle.hessian(inputs.numpy())), rtol=1e-4, atol=1e-5)
            assert statistic.tokens == ids.numel()
            stored = dense.get_submodule(layer).weight
            assert weight.equal(stored.T if type(dense) is GPT2LMHeadModel else stored)


@architecture
def test_each_block_is_measured_with_the_blocks_before_it_pruned(name):
    dense, ids = tiny.model(name, layers=3), tiny.token_ids(samples=4)
    pruned = copy.deepcopy(dense)
    prune(pruned, pruner=Recording(), sparsity=0.5, calibration=ids)
    check_against_hooks(dense, pruned, ids)


@pytest.mark.parametrize(("name", "samples"), [*((name, 5) for name in tiny.ARCHITECTURES), ("llama", 1), ("gpt2", 6)])
def test_batches_make_no_difference_also_when_the_last_is_smaller(name, samples, monkeypatch):
    dense, ids = tiny.model(name), tiny.token_ids(samples)
    monkeypatch.setattr(walk, "BATCH_TOKENS", 2 * ids.shape[1])
    pruned = copy.deepcopy(dense)
    prune(pruned, pruner=Recording(), sparsity=0.5, calibration=ids)
    check_against_hooks(dense, pruned, ids)


def test_layers_that_are_used_twice_are_measured_both_times_in_every_batch(monkeypatch):
    ids = tiny.token_ids(4)
    monkeypatch.setattr(walk, "BATCH_TOKENS", ids.shape[1])
    model, inputs = tiny.model(), []
    mlp = model.model.layers[0].mlp
    original = mlp.forward
    mlp.forward = lambda states: original(original(states))
    handle = mlp.up_proj.register_forward_pre_hook(lambda _, args: inputs.append(args[0].double().flatten(0, -2)))
    with torch.no_grad():
        model(input_ids=ids)
    handle.remove()
    prune(model, pruner=Recording(), sparsity=0.5, calibration=ids, modules="*.0.mlp.up_proj")
    ((_, statistic),) = Recording.given
    expected = oracle.hessian(torch.cat(inputs).numpy())
    torch.testing.assert_close(statistic.matrix.double(), torch.from_numpy(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_statistics_get_inputs_in_the_precision_of_the_arithmetic(precision):
    dtypes = set()

    class Seeing(Hessian):
        @classmethod
        def reads_any_dtype(cls):
            return False

        def update(self, inputs):
            dtypes.add(inputs.dtype)
            super().update(inputs)

    class SeeingPruner(Recording):
        name = "seeing"
        statistic = Seeing

    prune(tiny.model(dtype=torch.bfloat16), pruner=SeeingPruner(), sparsity=0.5, calibration=tiny.token_ids(), precision=precision)
    assert dtypes == {getattr(torch, precision)}


def test_sequences_longer_than_a_batch_go_one_by_one(monkeypatch):
    dense, ids = tiny.model(), tiny.token_ids(3)
    monkeypatch.setattr(walk, "BATCH_TOKENS", 1)
    pruned = copy.deepcopy(dense)
    prune(pruned, pruner=Recording(), sparsity=0.5, calibration=ids)
    check_against_hooks(dense, pruned, ids)


def test_the_sliding_window_is_replayed():
    """The window is shorter than the sequences, and it matters: without it the statistics of the second block are others."""
    ids = tiny.token_ids()
    assert ids.shape[1] > tiny.WINDOW
    results = []
    for window in (tiny.WINDOW, None):
        Recording.given.clear()
        prune(tiny.model("mistral", sliding_window=window), pruner=Recording(), sparsity=0.5, calibration=ids)
        results.append(Recording.given[-1][1].matrix)
    assert not torch.allclose(*results, rtol=1e-3)


@architecture
def test_layers_that_read_the_same_tensor_share_a_statistic(name):
    model = tiny.model(name)
    prune(model, pruner=Recording(), sparsity=0.5, calibration=tiny.token_ids())
    by_layer = dict(zip(names(model), (statistic for _, statistic in Recording.given), strict=True))
    if name in ("gpt2", "gpt-neox"):
        assert len(set(map(id, by_layer.values()))) == len(by_layer) == len(Tokens.made)
        return
    for block in find_blocks(model):
        of = {layer.name.split(".")[-1]: id(by_layer[layer.name]) for layer in block.layers}
        assert of["q_proj"] == of["k_proj"] == of["v_proj"]
        if "up_proj" in of:
            assert of["gate_proj"] == of["up_proj"]
        assert len(set(of.values())) == 4
    assert len(Tokens.made) == 4 * len(find_blocks(model))


def test_only_selected_layers_are_measured():
    model = tiny.model()
    prune(model, pruner=Recording(), sparsity=0.5, calibration=tiny.token_ids(), modules="*.1.*.k_proj")
    assert len(Recording.given) == len(Tokens.made) == 1
    expected = inputs_by_hooks(tiny.model(), ["model.layers.1.self_attn.k_proj"], tiny.token_ids())
    (inputs,) = expected.values()
    torch.testing.assert_close(
        Recording.given[0][1].matrix.double(), torch.from_numpy(oracle.hessian(inputs.numpy())), rtol=1e-4, atol=1e-5
    )


def test_one_blocks_statistics_are_gone_before_the_next_blocks_are_made(monkeypatch):
    alive, most = set(), []

    class Counted(Hessian):
        def __init__(self, in_features, device, dtype):
            super().__init__(in_features, device, dtype)
            alive.add(id(self))
            most.append(len(alive))

        def __del__(self):
            alive.discard(id(self))

    class Forgetful(Pruner):
        name = "forgetful"
        statistic = Counted

        def score(self, weight, statistic):
            return weight.abs()

    prune(tiny.model(layers=4), pruner=Forgetful(), sparsity=0.5, calibration=tiny.token_ids())
    assert len(most) == 16
    assert max(most) == 4


def traces(model):
    """Everything that hooks and replaced methods leave behind."""
    return {
        name: (len(module._forward_pre_hooks), len(module._forward_hooks), module.__dict__.get("forward"))
        for name, module in model.named_modules()
    }


@architecture
@pytest.mark.parametrize("pruner", [Recording, Failing])
def test_hooks_are_removed_and_forward_is_restored_also_after_an_error(name, pruner):
    model = tiny.model(name)
    before = traces(model)
    if pruner is Failing:
        with pytest.raises(ZeroDivisionError):
            prune(model, pruner=pruner(), sparsity=0.5, calibration=tiny.token_ids())
    else:
        prune(model, pruner=pruner(), sparsity=0.5, calibration=tiny.token_ids())
    assert traces(model) == before


def test_a_forward_that_the_block_has_of_its_own_is_kept_and_used():
    """As ``accelerate`` does it for models that are spread over devices."""
    model, calls = tiny.model(), []
    block = model.model.layers[1]
    original = block.forward

    def own(*args, **kwargs):
        calls.append(len(args))
        return original(*args, **kwargs)

    block.forward = own
    prune(model, pruner=Recording(), sparsity=0.5, calibration=tiny.token_ids())
    assert block.forward is own
    assert calls


def test_hooks_of_others_are_kept():
    model, seen = tiny.model(), []
    model.model.layers[0].mlp.register_forward_hook(lambda *_: seen.append(1))
    prune(model, pruner=Recording(), sparsity=0.5, calibration=tiny.token_ids())
    before = len(seen)
    model(input_ids=tiny.token_ids())
    assert before > 0
    assert len(seen) == before + 1


@architecture
def test_the_walk_keeps_no_cache(name, monkeypatch):
    """A cache in a replayed argument would grow with every replay."""
    recorded = []
    original = walk.call_block
    monkeypatch.setattr(walk, "call_block", lambda block, hidden, call: recorded.append(call) or original(block, hidden, call))
    prune(tiny.model(name), pruner=Recording(), sparsity=0.5, calibration=tiny.token_ids())
    assert recorded
    for call in recorded:
        assert not any(isinstance(value, DynamicCache) for value in (*call.args, *call.kwargs.values()))
        assert not call.kwargs.get("use_cache")


class Custom(nn.Module):
    """A block that is called with a positional and a keyword argument besides the hidden states, and returns a tuple."""

    def __init__(self, width):
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, states, scale, *, shift, unused=None):
        return states + self.second(torch.tanh(self.first(states * scale) + shift)), scale


class CustomModel(PreTrainedModel):
    """Calls each block with arguments of its own, which depend on the input."""

    config_class = LlamaConfig

    def __init__(self, config):
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab_size, config.hidden_size)
        self.blocks = nn.ModuleList(Custom(config.hidden_size) for _ in range(config.num_hidden_layers))
        self.post_init()

    def get_input_embeddings(self):
        return self.embed

    def forward(self, input_ids, attention_mask=None, use_cache=None):
        states = self.embed(input_ids)
        shift = input_ids.float().unsqueeze(-1) / 40
        for index, block in enumerate(self.blocks):
            states, _ = block(states, 1.5 + index, shift=shift * (index + 1))
        return states


def config(blocks):
    return LlamaConfig(hidden_size=8, num_attention_heads=2, num_hidden_layers=blocks, vocab_size=tiny.VOCABULARY)


def test_every_argument_of_a_block_is_replayed(monkeypatch):
    dense, ids = CustomModel(config(3)).eval(), tiny.token_ids()
    monkeypatch.setattr(walk, "BATCH_TOKENS", 2 * ids.shape[1])  # the shift differs from batch to batch
    pruned = copy.deepcopy(tiny.randomise(dense))
    prune(pruned, pruner=Recording(), sparsity=0.5, calibration=ids)
    check_against_hooks(dense, pruned, ids)


def test_a_model_that_leaves_out_a_block_is_refused_and_untouched():
    model = tiny.model()
    model.model.config.num_hidden_layers = 2
    before = tiny.weights(model)
    model.model.layers[1].forward = lambda *_, **__: None  # never reached
    original = model.model.forward

    def forward(*args, **kwargs):
        kept, model.model.layers = model.model.layers, model.model.layers[:1]
        try:
            return original(*args, **kwargs)
        finally:
            model.model.layers = kept

    model.model.forward = forward
    with raises_line(UnsupportedModelError, "LlamaForCausalLM"):
        prune(model, pruner=Recording(), sparsity=0.5, calibration=tiny.token_ids())
    assert tiny.same(tiny.weights(model), before)


def test_a_layer_that_the_tokens_do_not_reach_is_refused():
    model = CustomModel(config(2)).eval()
    for block in model.blocks:
        block.third = nn.Linear(8, 8)
    with raises_line(UnsupportedModelError, "blocks.0.third", "calibration tokens"):
        prune(model, pruner=Recording(), sparsity=0.5, calibration=tiny.token_ids())


def test_calibration_tokens_are_not_written_into():
    ids = tiny.token_ids()
    before = ids.clone()
    prune(tiny.model(), pruner=Recording(), sparsity=Sparsity(0.5), calibration=ids)
    assert ids.equal(before)
