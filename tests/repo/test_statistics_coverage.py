"""Intervals hold the truth as often as they say, over 500 simulated experiments, and equal curves are not told apart.

``scripts/check_coverage.py`` does the same for more situations. The methods were not chosen on the simulations here.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
from check_coverage import Ability, coverage, crossings, differences, pairs

from harness_ext.statistics.resampling import _Block

SIMULATIONS = 500


def held(simulation, first):
    return {name: 1 - (below + above) / SIMULATIONS for name, (below, above) in coverage(simulation, SIMULATIONS, first).items()}


def test_the_retained_fraction_and_the_difference_are_covered():
    found = held(pairs(Ability(), 5), 50_000)
    assert set(found) == {"retained", "difference"}
    assert all(0.93 <= share <= 0.97 for share in found.values()), found


@pytest.mark.parametrize("rest", [0.05, 0.5])
def test_the_critical_sparsity_is_covered(rest):
    (share,) = held(crossings([Ability(rest=rest)], 0.05), 60_000).values()
    assert 0.93 <= share <= 0.97


def test_equal_curves_show_no_disparity_beyond_the_level_of_the_test():
    (share,) = held(differences(Ability(), Ability(), 0.05), 70_000).values()
    assert stats.binomtest(round((1 - share) * SIMULATIONS), SIMULATIONS, 0.05, alternative="greater").pvalue > 0.01
    assert share < 0.99  # nor is the test blind


def test_half_of_the_noise_would_be_noticed(monkeypatch):
    resampled = _Block.resampled

    def half(block, generator, resamples):
        centre = block.means(block.counts[None].astype(float))
        return centre + (resampled(block, generator, resamples) - centre) / 2

    monkeypatch.setattr(_Block, "resampled", half)
    assert all(share < 0.85 for share in held(pairs(Ability(), 5), 50_000).values())
