"""``depth`` and ``width`` take out what comes nearest to the ratio, say how near that is, and refuse what is too far away."""

from __future__ import annotations

import logging
from fractions import Fraction
from itertools import combinations_with_replacement
from typing import Any

import pytest
import tiny
from harness_ext_pruners.depth import Depth
from harness_ext_pruners.shares import nearest

from harness_ext import BadOptionError, Sparsity, find_blocks, prune

IDS = tiny.token_ids()


def linear_weights(model: Any) -> int:
    return sum(layer.weight.numel() for block in find_blocks(model) for layer in block.layers)


def pruned(pruner: str, ratio: float, *, modules: str = "all", options: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    model = tiny.model(**settings)
    before = linear_weights(model)
    record = prune(model, pruner=pruner, sparsity=ratio, modules=modules, calibration=IDS, pruner_options=options)
    if modules == "all":
        assert record["achieved_sparsity"] == pytest.approx(1 - linear_weights(model) / before)
    assert record["sparsity_difference"] == pytest.approx(record["achieved_sparsity"] - ratio)
    return record


@pytest.mark.parametrize(
    ("pruner", "ratio", "modules", "layers", "achieved"),
    [
        ("depth", 0.3, "all", 3, 1 / 3),
        ("depth", 0.3, "all", 2, 0.5),
        ("depth", 0.55, "all", 3, 2 / 3),
        ("width", 0.4, "attention", 2, 0.5),
        ("width", 0.05, "ffn", 2, 1 / 24),
        ("width", 0.9791, "ffn", 2, 23 / 24),  # all channels would be as near, but one has to stay
    ],
)
def test_the_nearest_is_taken_out_and_said(
    pruner: str, ratio: float, modules: str, layers: int, achieved: float, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "harness_ext"):
        record = pruned(pruner, ratio, modules=modules, layers=layers)
    assert record["achieved_sparsity"] == pytest.approx(achieved)
    (said,) = [entry.getMessage() for entry in caplog.records]
    assert pruner in said
    assert str(ratio) in said
    assert f"{achieved:.4f}" in said


@pytest.mark.parametrize(("pruner", "ratio", "layers"), [("depth", 0.5, 4), ("depth", 0.25, 4), ("width", 0.5, 2)])
def test_nothing_is_said_where_nothing_is_missed(pruner: str, ratio: float, layers: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "harness_ext"):
        assert abs(pruned(pruner, ratio, layers=layers)["sparsity_difference"]) < 1e-9
    assert not caplog.records


@pytest.mark.parametrize(
    ("pruner", "ratio", "modules", "miss"),
    [("depth", 0.3, "all", 0.2), ("width", 0.4, "attention", 0.1), ("width", 0.06, "ffn", 0.06 - 1 / 24)],
)
def test_a_tolerance_refuses_what_is_further_away_and_leaves_the_model_alone(pruner: str, ratio: float, modules: str, miss: float) -> None:
    pruned(pruner, ratio, modules=modules, options={"tolerance": miss + 1e-6})
    model = tiny.model()
    before = tiny.weights(model)
    with pytest.raises(BadOptionError, match=rf"sparsity={ratio}.*the nearest is .*pruner\.tolerance=") as error:
        prune(model, pruner=pruner, sparsity=ratio, modules=modules, calibration=IDS, pruner_options={"tolerance": miss - 1e-6})
    assert "\n" not in str(error.value)
    assert tiny.same(tiny.weights(model), before)


@pytest.mark.parametrize("pruner", ["depth", "width"])
@pytest.mark.parametrize("tolerance", [-0.1, 1.0, float("nan"), "0.1"])
def test_a_tolerance_is_a_share(pruner: str, tolerance: Any) -> None:
    with pytest.raises(BadOptionError, match=r"pruner\.tolerance="):
        prune(tiny.model(), pruner=pruner, sparsity=0.5, calibration=IDS, pruner_options={"tolerance": tolerance})


def test_nearest_is_what_comparing_all_shares_gives() -> None:
    for total in (3, 5, 8):
        for shares in combinations_with_replacement(range(1, total), 3):
            for hundredths in range(1, 100):
                given = [Fraction(share, total) for share in shares]
                misses = [abs(share - Fraction(hundredths, 100)) for share in given]
                best = max(share for share, miss in zip(given, misses, strict=True) if miss == min(misses))
                refused = Fraction(hundredths, 100) < min(misses) or 1 - Fraction(hundredths, 100) <= min(misses) or min(misses) > 0.25
                try:
                    found = given[nearest("it", Sparsity(hundredths / 100), given, str, 0.25)]
                except BadOptionError:
                    assert refused
                else:
                    assert not refused
                    assert found == best


@pytest.mark.parametrize(
    ("ratio", "sizes", "count"),
    [(0.3, [5, 3, 2], 1), (0.3, [2, 3, 5], 1), (0.45, [2, 3, 5], 2), (0.3, [1, 1, 8], 2), (0.3, [1, 1, 1], 1), (0.7, [1, 8, 1], 2)],
)
def test_of_blocks_that_differ_in_size_the_weights_count(ratio: float, sizes: list[int], count: int) -> None:
    assert Depth()._count(Sparsity(ratio), sizes) == count


def test_blocks_of_too_much_weight_are_not_taken_out_in_silence() -> None:
    with pytest.raises(BadOptionError, match=r"the nearest is 0\.8, one block.*pruner\.tolerance=0\.25"):
        Depth()._count(Sparsity(0.5), [8, 1, 1])
