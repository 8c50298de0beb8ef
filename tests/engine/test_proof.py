"""The comparison of the walk with the model itself, and what blocks may hand to each other."""

from __future__ import annotations

import copy
from typing import Any

import oracle
import pytest
import tiny
import torch
from torch import nn
from transformers import LlamaConfig, PreTrainedModel

from harness_ext import CalibrationError, UnsupportedModelError, prune
from harness_ext.engine import walk

WIDTH, BLOCKS = 8, 4


class Block(nn.Module):
    """``turn`` is what the model does with the block: ``memory`` is its own, anew for each forward pass."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def compute(self, states: torch.Tensor) -> torch.Tensor:
        return states + 0.3 * self.second(torch.tanh(self.first(states)))

    def turn(self, states, memory):
        return self(states)


class Plain(Block):
    def forward(self, states, value=0):
        return self.compute(states) + 0.5 * value


class ReturnsValue(Block):
    """A residual of the values of the first block, as in RWKV-7."""

    def forward(self, states, value=None):
        states = self.compute(states)
        value = torch.sin(self.first(states)) if value is None else value
        return states + 0.5 * value, value

    def turn(self, states, memory):
        states, memory["value"] = self(states, value=memory.get("value"))
        return states


class ReturnsPair(Block):
    """The same, nested: what is handed on is in a tuple in a tuple."""

    def forward(self, states, pair=(None, 1)):
        value, number = pair
        states = self.compute(states)
        value = torch.sin(self.first(states)) if value is None else value
        return states + 0.5 * value, (value, number + 1)

    def turn(self, states, memory):
        states, memory["pair"] = self(states, memory.get("pair", (None, 1)))
        return states


class WritesIntoDictionary(Block):
    """Keys and values that later blocks share, as in Gemma 3n."""

    def forward(self, states, shared):
        states = self.compute(states)
        if self.number == 0:
            shared["value"] = torch.sin(self.first(states))
        return states + 0.5 * shared["value"]

    def turn(self, states, memory):
        return self(states, shared=memory)


class AppendsToList(Block):
    """Each block reads what all blocks before it appended."""

    def forward(self, states, seen):
        states = self.compute(states) + sum(0.1 * value for value in seen)
        seen.append(torch.sin(states))
        return states

    def turn(self, states, memory):
        return self(states, memory.setdefault("seen", []))


class Notes:
    """An object of the model's own."""

    def __init__(self):
        self.values = []


class WritesIntoObject(Block):
    """The same in an object that nobody knows how to copy."""

    def forward(self, states, notes):
        states = self.compute(states) + sum(0.1 * value for value in notes.values)
        notes.values.append(torch.sin(states))
        return states

    def turn(self, states, memory):
        return self(states, memory.setdefault("notes", Notes()))


class ReturnsList(Block):
    """GPT-1."""

    def forward(self, states):
        return [self.compute(states)]

    def turn(self, states, memory):
        return self(states)[0]


class ReturnsMore(Block):
    """float32 from a model in another dtype."""

    def forward(self, states):
        return self.compute(states.to(self.first.weight.dtype)).float() + torch.full((), 1e-4)


class ByKeyword(Block):
    def forward(self, shift, hidden_states):
        return self.compute(hidden_states + shift)

    def turn(self, states, memory):
        return self(shift=0.1, hidden_states=states)


class Copied(Plain):
    def turn(self, states, memory):
        return self(states).clone()


class Turned(Plain):
    def turn(self, states, memory):
        return self(states).flip(-1)


class ChangedInPlace(Plain):
    def turn(self, states, memory):
        states = self(states)
        states += 0.1
        return states


class ValueBetween(Plain):
    """An argument that is made between the blocks of what one returned."""

    def turn(self, states, memory):
        states = self(states, value=memory.get("value", 0))
        memory["value"] = states.flip(-1)
        return states


class OnItself(Block):
    """Leaves something in the class that all others read."""

    left: dict[str, torch.Tensor] = {}  # noqa: RUF012

    def forward(self, states):
        states = self.compute(states)
        if self.number == 0:
            self.left["value"] = torch.sin(self.first(states))
        return states + 0.5 * self.left["value"]


class Counting(Block):
    """Something else each time."""

    calls = 0

    def forward(self, states):
        type(self).calls += 1
        return self.compute(states) + self.calls


class Model(PreTrainedModel):
    """Calls its blocks in one of the ways above."""

    config_class = LlamaConfig

    def __init__(self, kind: type[Block]) -> None:
        super().__init__(LlamaConfig(hidden_size=WIDTH, num_attention_heads=2, num_hidden_layers=BLOCKS, vocab_size=tiny.VOCABULARY))
        self.embed = nn.Embedding(tiny.VOCABULARY, WIDTH)
        self.blocks = nn.ModuleList(kind(number) for number in range(BLOCKS))
        self.post_init()

    def get_input_embeddings(self):
        return self.embed

    def forward(self, input_ids, attention_mask=None, use_cache=None):
        states, memory = self.embed(input_ids), {}
        for block in self.blocks:
            states = block.turn(states, memory)
        return states


def build(kind: type[Block], dtype: torch.dtype = torch.float32) -> Model:
    return tiny.randomise(Model(kind)).to(dtype).eval()


def check_masks(dense: Model, pruned: Model, ids: torch.Tensor) -> None:
    """Wanda's masks, from a forward pass of the whole model for each block."""
    expected = copy.deepcopy(dense)
    for number in range(BLOCKS):
        read: dict[str, list[torch.Tensor]] = {"first": [], "second": []}
        handles = [
            getattr(expected.blocks[number], name).register_forward_pre_hook(lambda _, args, calls=calls: calls.append(args[0]))
            for name, calls in read.items()
        ]
        with torch.no_grad():
            expected(ids)
        for handle in handles:
            handle.remove()
        for name, calls in read.items():
            inputs = torch.cat(calls)
            weight = getattr(expected.blocks[number], name).weight.data
            scores = oracle.wanda_scores(weight.double().numpy(), inputs.double().reshape(-1, WIDTH).numpy())
            weight[torch.from_numpy(oracle.mask_of_rows(scores, 0.5))] = 0
            assert torch.equal(getattr(pruned.blocks[number], name).weight, weight), (number, name)


class Streams(Block):
    """Several streams in front of the sequences, as in Gemma 3n: hidden states are [streams, sequences, tokens, features]."""

    def forward(self, states):
        return self.compute(states)

    def turn(self, states, memory):
        return self(states if self.number else torch.stack([states, -2 * states, torch.sin(states)]))


WALKED = [ReturnsValue, ReturnsPair, WritesIntoDictionary, AppendsToList, ReturnsList, ByKeyword, Copied, Streams]


@pytest.mark.parametrize("samples", [1, 4, 5])  # in batches of two, the last of them smaller
@pytest.mark.parametrize("kind", WALKED)
def test_what_blocks_hand_on_is_handed_on(kind: type[Block], samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    dense, ids = build(kind), tiny.token_ids(samples)
    monkeypatch.setattr(walk, "BATCH_TOKENS", 2 * ids.shape[1])
    pruned = copy.deepcopy(dense)
    prune(pruned, pruner="wanda", sparsity=0.5, calibration=ids, precision="float64")
    check_masks(dense, pruned, ids)


class MixesSequences(Block):
    """Computes a sequence from the other sequences of its batch as well."""

    def forward(self, states):
        return self.compute(states + states.mean(0, keepdim=True))


REFUSED = {
    MixesSequences: r"cannot be calibrated in batches: what blocks\.0 computes",
    ValueBetween: r"blocks\.1 computes depends on more than",
    Turned: r"blocks\.1 does not read what blocks\.0 returned",
    ChangedInPlace: r"blocks\.1 does not read what blocks\.0 returned",
    OnItself: r"blocks\.1 computes depends on more than",
    WritesIntoObject: r"blocks\.0 computes depends on more than",
    Counting: r"blocks\.0 computes depends on more than",
}


@pytest.mark.parametrize("pruner", ["wanda", "sparsegpt"])
@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_handed_on_in_another_way_is_refused_before_a_weight_changes(kind: type[Block], pruner: str) -> None:
    model = build(kind)
    before = tiny.weights(model)
    with pytest.raises(UnsupportedModelError, match=REFUSED[kind]) as error:
        prune(model, pruner=pruner, sparsity=0.5, calibration=tiny.token_ids(4))
    assert "\n" not in str(error.value)
    assert tiny.same(tiny.weights(model), before)


def test_hidden_states_keep_the_dtype_that_a_block_returned() -> None:
    """Of a model in bfloat16 that computes the sums of its residuals in float32."""
    dense, ids = build(ReturnsMore, dtype=torch.bfloat16), tiny.token_ids(4)
    pruned = copy.deepcopy(dense)
    prune(pruned, pruner="wanda", sparsity=0.5, calibration=ids, precision="float64")
    check_masks(dense, pruned, ids)


@pytest.mark.parametrize("options", [{}, {"allocation": "owl"}, {"true_sequential": True}], ids=str)
def test_its_seconds_are_in_the_record(options: dict[str, Any]) -> None:
    record = prune(tiny.model(), pruner="wanda", sparsity=0.5, calibration=tiny.token_ids(), **options)
    assert record["seconds_parts"]["proof"] > 0


def test_it_is_left_out_where_nothing_is_measured() -> None:
    model = build(OnItself)
    assert "proof" not in prune(model, pruner="magnitude", sparsity=0.5)["seconds_parts"]


class Fails(Block):
    """As some models do beyond their longest sequence."""

    def forward(self, states):
        raise IndexError("index 12 is out of bounds\nfor dimension 1 " + "x" * 500)


def test_an_error_of_the_model_is_one_line() -> None:
    with pytest.raises(
        UnsupportedModelError, match=r"Model fails on calibration tokens \(1, 12\): IndexError: index 12 is out of"
    ) as error:
        prune(build(Fails), pruner="wanda", sparsity=0.5, calibration=tiny.token_ids())
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def test_a_model_that_knows_fewer_tokens_says_so_first() -> None:
    with pytest.raises(CalibrationError):
        prune(tiny.model(), pruner="wanda", sparsity=0.5, calibration=torch.full((2, 8), tiny.VOCABULARY))
