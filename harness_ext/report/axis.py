"""The horizontal axis of figures: sparsity, or size of the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness_ext.errors import did_you_mean, shown
from harness_ext.method.grid import stored_bits
from harness_ext.report.series import Series
from harness_ext.report.trials import LoadedTrial, ReportError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Axis:
    """The horizontal axis of the curves.

    Args:
        name: name in ``--axis``.
        label: text below the axis.
        size: gives the size of a trial, or None if the results do not say. The sparsity axis has no such function.
    """

    name: str
    label: str
    size: Callable[[LoadedTrial], float | None] | None = None

    def place(self, series: Series, sparsity: float) -> float:
        """The position of the trials of a series at one sparsity, or number of bits. 0 is the dense model."""
        if self.size is None:
            return sparsity
        trials = [series.dense] if sparsity == 0 and series.dense else list(series.points[sparsity].values())
        return float(np.mean([self.of(trial) for trial in trials]))

    def places(self, series: Series, sparsities: Sequence[float]) -> list[float]:
        """The positions of several sparsities, which may lie between measured ones."""
        if self.size is None:
            return list(sparsities)
        grid = [*([0.0] if series.dense else []), *sorted(series.points)]
        return [float(position) for position in np.interp(sparsities, grid, [self.place(series, sparsity) for sparsity in grid])]

    def scale(self, axes: Axes) -> None:
        """Makes an axis of sizes logarithmic, with ticks such as 500 k."""
        from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

        if self.size is not None:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(EngFormatter())

    def of(self, trial: LoadedTrial) -> float:
        """The position of one trial.

        Raises:
            ReportError: the results do not tell the size of the model.
        """
        position = self.size(trial) if self.size else trial.achieved
        if position is None:
            missing = "how many parameters there are" if trial.nonzero is None else "how many bits a parameter has"
            raise ReportError(f"--axis {self.name}: the results do not say {missing} in {trial.name}")
        return float(position)


def _bytes(trial: LoadedTrial) -> float | None:
    if trial.weight_bits is not None:
        bits = bits_of_model(trial)
        return None if bits is None else bits / 8
    return None if trial.nonzero is None or trial.bits is None else trial.nonzero * trial.bits / 8


def bits_of_model(trial: LoadedTrial) -> float | None:
    """The bits of the whole model; None if the results do not tell.

    A quantised layer counts what its record says. A pruned layer counts the cheaper of two forms: all weights, or those that are left and
    a mask of one bit a weight. All else counts the bits of its dtype.
    """
    if quantisation := trial.pruning.get("quantisation"):
        return float(quantisation["bits_of_model"])
    if trial.weight_bits is not None:  # a quantised checkpoint that was pruned: its record does not count codes of zeros
        return None
    if trial.parameters is None or trial.bits is None:
        return None
    layers = list(trial.layers.values())
    rest = trial.parameters - sum(entry["weights"] for entry in layers)
    return float(rest) * trial.bits + sum(stored_bits(entry["weights"], entry["zeros"], trial.bits) for entry in layers)


SPARSITY = Axis("sparsity", "sparsity of the pruned layers")
AXES = {
    axis.name: axis
    for axis in (
        SPARSITY,
        Axis("size", "parameters that are not zero", lambda trial: trial.nonzero),
        Axis("bytes", "bytes of the parameters that are not zero", _bytes),
        Axis("bits", "bits of the whole model", bits_of_model),
    )
}


def axis_named(name: str) -> Axis:
    """An axis by its name.

    Raises:
        ReportError: no such name.
    """
    if name not in AXES:
        raise ReportError(f"--axis {shown(name)}: want {', '.join(AXES)}.{did_you_mean(name, list(AXES))}")
    return AXES[name]
