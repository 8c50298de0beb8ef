"""A sample of the architectures that ``scripts/check_architectures.py`` checks, and the script itself."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPTS = Path(__file__).parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

import check_architectures  # noqa: E402
import reference_walk  # noqa: E402
import tiny_architectures  # noqa: E402

RIGHT = (
    "afmoe", "apertus", "aria_text", "bert", "bloom", "codegen", "cohere2", "cohere/qknorm", "dbrx", "deepseek_v2",
    "ernie4_5_moe", "falcon", "falcon/40b", "gemma2", "gemma3n_text", "gemma4_text/moe", "glm4_moe", "gpt_neo",
    "gpt_oss", "gptj", "granitemoe", "jetmoe", "lfm2_moe", "llama4_text", "longcat_flash", "minimax_m2", "mixtral",
    "mpt", "olmoe", "openai-gpt", "opt/350m", "phi3", "phimoe", "qwen2_moe", "qwen3_5_moe_text", "rwkv", "starcoder2",
)  # fmt: skip
REFUSED = {
    "bart": "encoder_attn.k_proj was not used by the calibration tokens",
    "hrm_text": "want one list of 32 decoder layers with linear layers in them, found 2",
    "xlnet": "is not a matrix of a linear layer",
}


@pytest.mark.parametrize("name", [*RIGHT, *REFUSED])
def test_a_sample(name: str) -> None:
    row = check_architectures.check(name, pruners=("wanda",), sparsities=(0.5,), checkpoints=False)
    if name in REFUSED:
        assert row["result"] == "refused"
        assert REFUSED[name] in row["reason"]
    else:
        assert row["result"] == "right", row


@pytest.mark.parametrize("name", ["qwen3_moe", "gpt_oss", "minimax_m2"])
def test_a_checkpoint_of_a_mixture(name: str) -> None:
    """Whole, streamed, and loaded again."""
    assert check_architectures.check(name, pruners=("wanda",), sparsities=(0.5,))["result"] == "right"


class TestTheCheckItself:
    """It has to see what is wrong."""

    def row(self, monkeypatch: pytest.MonkeyPatch, spoil: Any) -> dict[str, Any]:
        prune = check_architectures.harness_ext.prune

        def spoilt(model: Any, **options: Any) -> dict[str, Any]:
            record = prune(model, **options)
            spoil(model, record)
            return record

        monkeypatch.setattr(check_architectures.harness_ext, "prune", spoilt)
        return check_architectures.check("mixtral", pruners=("wanda",), sparsities=(0.5,), checkpoints=False)

    @staticmethod
    def another_mask(model: Any, record: dict[str, Any]) -> None:
        weight = reference_walk.weight_of(model, "model.layers.2.mlp.experts.1.down_proj")
        weight.copy_(weight.flip(1))

    @staticmethod
    def another_count(model: Any, record: dict[str, Any]) -> None:
        record["layers"]["model.layers.0.self_attn.q_proj"]["zeros"] += 1

    @staticmethod
    def a_change(model: Any, record: dict[str, Any]) -> None:
        model.model.norm.weight.data[0] += 1

    @staticmethod
    def a_dense_matrix(model: Any, record: dict[str, Any]) -> None:
        del record["dense"]["model.layers.*.mlp.gate.weight"]

    @staticmethod
    def a_failure(model: Any, record: dict[str, Any]) -> None:
        raise ZeroDivisionError

    @pytest.mark.parametrize(
        ("spoil", "reason"),
        [
            ("another_mask", "places of the masks differ, most in model.layers.2.mlp.experts.1.down_proj"),
            ("another_count", "model.layers.0.self_attn.q_proj has 2048 zeros"),
            ("a_change", "model.norm.weight changed"),
            ("a_dense_matrix", "mlp.gate.weight stayed dense, and the record does not list it"),
            ("a_failure", "traceback: ZeroDivisionError"),
        ],
    )
    def test_sees(self, monkeypatch: pytest.MonkeyPatch, spoil: str, reason: str) -> None:
        row = self.row(monkeypatch, getattr(self, spoil))
        assert row["result"] == "wrong"
        assert reason in row["reason"]


def test_the_page_has_a_line_for_each_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, rows = tmp_path / "page.md", tmp_path / "rows.jsonl"
    kept = [
        {"name": "a", "result": "right", "layers": 3, "experts": 2, "dense": 0.012},
        {"name": "b", "result": "refused", "reason": "why"},
    ]
    rows.write_text("".join(json.dumps(row) + "\n" for row in [*kept, {"name": "c", "result": "not built", "reason": "no"}]))
    assert check_architectures.main(["a", "b", "c", "--rows", str(rows), "--write", str(page)]) == 0
    text = page.read_text()
    assert "Of 2 models 1 are right, 1 are refused, and 0 are wrong." in text
    assert "| `a` | right | 3 | 2 | 1.2% |" in text
    assert "| `b` | refused: why | | | |" in text
    assert "`c`" in text.splitlines()[-1]


def test_the_reference_finds_every_matrix_by_itself() -> None:
    model = tiny_architectures.build("gpt_oss")
    gate, up = (reference_walk.weight_of(model, f"model.layers.1.mlp.experts.2.{role}") for role in ("gate_proj", "up_proj"))
    stored = model.model.layers[1].mlp.experts.gate_up_proj[2]
    assert torch.equal(torch.stack([gate, up], 1).flatten(0, 1), stored.T)
