"""``harness-ext sweep``: prunes and evaluates models over a grid of settings, and keeps a record of each trial."""

from __future__ import annotations

from harness_ext.sweep.records import TrialRecord, load

__all__ = ["TrialRecord", "load"]
