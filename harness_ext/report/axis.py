"""What figures show scores against: the sparsity, or the size of the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness_ext.errors import did_you_mean, shown
from harness_ext.report.series import Series
from harness_ext.report.trials import LoadedTrial, ReportError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Axis:
    """The horizontal axis of the curves.

    Args:
        name: as users type it.
        label: below the axis.
        size: of a trial, None where the results do not say; None for the axis of sparsities.
    """

    name: str
    label: str
    size: Callable[[LoadedTrial], float | None] | None = None

    def place(self, series: Series, sparsity: float) -> float:
        """Where the trials of a series at one sparsity are; 0 is the dense model."""
        if self.size is None:
            return sparsity
        trials = [series.dense] if sparsity == 0 and series.dense else list(series.points[sparsity].values())
        return float(np.mean([self.of(trial) for trial in trials]))

    def places(self, series: Series, sparsities: Sequence[float]) -> list[float]:
        """The same for several sparsities, which may lie between those measured."""
        if self.size is None:
            return list(sparsities)
        grid = [*([0.0] if series.dense else []), *sorted(series.points)]
        return [float(at) for at in np.interp(sparsities, grid, [self.place(series, sparsity) for sparsity in grid])]

    def scale(self, axes: Axes) -> None:
        """Sizes are on a logarithmic axis, with ticks such as 500 k."""
        from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

        if self.size is not None:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(EngFormatter())

    def of(self, trial: LoadedTrial) -> float:
        """The size of a trial.

        Raises:
            ReportError: the results do not say.
        """
        found = self.size(trial) if self.size else trial.achieved
        if found is None:
            what = "how many parameters there are" if trial.nonzero is None else "how many bits a parameter has"
            raise ReportError(f"--axis {self.name}: the results do not say {what} in {trial.name}")
        return float(found)


def _bytes(trial: LoadedTrial) -> float | None:
    return None if trial.nonzero is None or trial.bits is None else trial.nonzero * trial.bits / 8


SPARSITY = Axis("sparsity", "sparsity of the pruned layers")
AXES = {
    axis.name: axis
    for axis in (
        SPARSITY,
        Axis("size", "parameters that are not zero", lambda trial: trial.nonzero),
        Axis("bytes", "bytes of the parameters that are not zero", _bytes),
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
