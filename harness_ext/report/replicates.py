"""Models that were trained alike with different seeds: the model is the unit of what is said of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from harness_ext.errors import did_you_mean, shown
from harness_ext.report.abilities import IN_CONTEXT, NAMES, RECALL
from harness_ext.report.series import Series
from harness_ext.report.trials import LoadedTrial, ReportError
from harness_ext.statistics import Curve, ModelsDisparity, disparity_over_models

Pair = tuple[list[Curve], list[Curve]]  # of recall, of the in-context ability


@dataclass(frozen=True)
class Replicates:
    """One method on several models that are replicates.

    Args:
        label: of the method, with the number of models.
        series: the label of each model's series, by the name of the model.
        curves: of each model, by its name, of the same tasks.
    """

    label: str
    series: Mapping[str, str]
    curves: Mapping[str, Pair]

    def disparity(self, drop: float, corrected: bool, families: Mapping[str, str], resamples: int, level: float = 0.95) -> ModelsDisparity:
        """Over the models, with the scores of each averaged over its calibration seeds.

        Raises:
            StatisticsError: the curves do not allow it.
        """
        return disparity_over_models(
            self.curves, drop=drop, corrected=corrected, families=families, level=level, resamples=resamples
        )  # fmt: skip


def check_replicates(groups: Sequence[Sequence[str]], trials: Sequence[LoadedTrial]) -> None:
    """Raises ReportError for a group of fewer than two models, a name twice, or a model that the results do not have."""
    models = sorted({trial.pretrained for trial in trials})
    seen: set[str] = set()
    for names in groups:
        for name in names:
            if name not in models:
                raise ReportError(
                    f"--replicates: no results of a model {shown(name)}; there are {', '.join(models)}.{did_you_mean(name, models)}"
                )
            if name in seen:
                raise ReportError(f"--replicates: the model {shown(name)} is named twice; want every model once")
            seen.add(name)
        if len(names) < 2:
            raise ReportError(f"--replicates {','.join(names)}: one model; want at least two, with commas between them")


def replicates(
    groups: Sequence[Sequence[str]], series: Sequence[Series], curves: Callable[[Series, str, Sequence[str] | None], list[Curve]]
) -> tuple[list[Replicates], list[str]]:
    """The methods with which two models or more of a group were pruned, and what could not be put together.

    Args:
        groups: names of models.
        curves: gives the curves of an ability of a series, of all its tasks or of those that are named.
    """
    made, gaps = [], []
    for names in groups:
        methods: dict[str, dict[str, Series]] = {}
        for one in series:
            if one.pretrained in names:
                methods.setdefault(repr(sorted(one.settings.items())), {})[one.pretrained] = one
        for pruned in methods.values():
            by_model = {name: pruned[name] for name in names if name in pruned}
            label = _label(by_model)
            common = {ability: _common([curves(one, ability, None) for one in by_model.values()]) for ability in (RECALL, IN_CONTEXT)}
            if absent := [name for name in names if name not in by_model]:
                gaps.append(f"{label}: without {', '.join(absent)}, which was not pruned in this way")
            if lacking := [NAMES[ability] for ability, tasks in common.items() if not tasks]:
                gaps.append(f"{label}: nothing over models, there is no task of {' or of '.join(lacking)} with a curve of every model")
            elif len(by_model) < 2:
                gaps.append(f"{label}: nothing over models, there is only one")
            else:
                pairs = {
                    name: (curves(one, RECALL, common[RECALL]), curves(one, IN_CONTEXT, common[IN_CONTEXT]))
                    for name, one in by_model.items()
                }
                made.append(Replicates(label, {name: one.label for name, one in by_model.items()}, pairs))
    return made, gaps


def _label(by_model: Mapping[str, Series]) -> str:
    name, one = next(iter(by_model.items()))
    count = len(by_model)
    return f"{one.label.removeprefix(f'{name}, ')} over {count} trained model{'' if count == 1 else 's'} ({', '.join(by_model)})"


def _common(curves: Sequence[Sequence[Curve]]) -> list[str]:
    """The tasks that all have."""
    return [curve.name for curve in curves[0] if all(curve.name in [other.name for other in more] for more in curves[1:])]
