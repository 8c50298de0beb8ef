"""``harness-ext sweep``: many trials of pruning and evaluation in one process, and the records that they leave."""

from __future__ import annotations

from harness_ext.sweep.records import TrialRecord, load

__all__ = ["TrialRecord", "load"]
