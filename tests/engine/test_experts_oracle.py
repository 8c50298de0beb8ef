"""Experts of eight families against an independent Wanda and SparseGPT, which compute by themselves what each expert reads."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from harness_ext import prune

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import reference_walk
import tiny_architectures

FAMILIES = ("mixtral", "qwen3_moe", "gpt_oss", "deepseek_v3", "llama4_text", "granitemoe", "dbrx", "jamba")
SMALL: dict[str, dict[str, Any]] = {
    "dbrx": {"n_layers": 2},
    "jamba": {"num_hidden_layers": 2, "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 0},
}


CASES = [(family, sparsity, dtype) for family in FAMILIES for sparsity in (0.5, "2:4") for dtype in (torch.float32, torch.bfloat16)]
QUICK = [(family, 0.5, torch.float32) for family in FAMILIES] + [("mixtral", "2:4", torch.float32), ("gpt_oss", "2:4", torch.float32)]


@pytest.mark.parametrize(
    ("family", "sparsity", "dtype"), [case if case in QUICK else pytest.param(*case, marks=pytest.mark.slow) for case in CASES], ids=str
)
def test_masks_and_output_errors(family: str, sparsity: Any, dtype: torch.dtype) -> None:
    dense = tiny_architectures.build(family, dtype=dtype, **SMALL.get(family, {"num_hidden_layers": 2}))
    ids = tiny_architectures.token_ids(8, 48)
    amount: dict[str, Any] = {"ratio": None, "pattern": (2, 4)} if sparsity == "2:4" else {}
    for name, reference in (("wanda", reference_walk.wanda(**amount)), ("sparsegpt", reference_walk.sparsegpt(**amount))):
        pruned, expected = copy.deepcopy(dense), copy.deepcopy(dense)
        record = prune(pruned, pruner=name, sparsity=sparsity, calibration=ids, precision="float64")
        layers = list(record["layers"])
        assert sum("tokens" in entry for entry in record["layers"].values()) >= 12
        read = reference_walk.walk(expected, layers, ids, reference)
        ours = theirs = 0.0
        for layer in layers:
            was, now, wanted = (reference_walk.weight_of(model, layer) for model in (dense, pruned, expected))
            if name == "wanda":
                assert torch.equal(now, wanted), layer
            ours += reference_walk.output_error(was, now, read[layer])
            theirs += reference_walk.output_error(was, wanted, read[layer])
        assert ours == pytest.approx(theirs, rel=1e-3)
        assert theirs > 0
