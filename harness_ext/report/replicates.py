"""Groups of models that were trained alike with different seeds. Statistics over such a group have the model as unit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from harness_ext.errors import did_you_mean, shown
from harness_ext.report.abilities import IN_CONTEXT, NAMES, RECALL
from harness_ext.report.series import Series
from harness_ext.report.trials import LoadedTrial, ReportError
from harness_ext.statistics import Curve, ModelsDisparity, disparity_over_models

Pair = tuple[list[Curve], list[Curve]]  # curves of recall, and of in-context ability


@dataclass(frozen=True)
class Replicates:
    """One method on several models that are replicates.

    Args:
        label: label of the method, with the number of models.
        series: labels of the series, by the name of the model.
        curves: curves of the same tasks for each model, by the name of the model.
    """

    label: str
    series: Mapping[str, str]
    curves: Mapping[str, Pair]

    def disparity(self, drop: float, corrected: bool, families: Mapping[str, str], resamples: int, level: float = 0.95) -> ModelsDisparity:
        """The disparity over the models. Scores of a model are averaged over its calibration seeds.

        Raises:
            StatisticsError: the curves do not allow it.
        """
        return disparity_over_models(self.curves, drop=drop, corrected=corrected, families=families, level=level, resamples=resamples)


def check_replicates(groups: Sequence[Sequence[str]], trials: Sequence[LoadedTrial]) -> None:
    """Raises ReportError if a group has fewer than two models, a name occurs twice, or the results lack a model."""
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
    """The methods with which two or more models of a group were pruned. Also returns what could not be combined.

    Args:
        groups: names of the models of each group.
        curves: gives the curves of an ability in a series, for all tasks or for the named ones.
    """
    combined, gaps = [], []
    for names in groups:
        methods: dict[str, dict[str, Series]] = {}
        for each in series:
            if each.pretrained in names:
                methods.setdefault(repr(sorted(each.settings.items())), {})[each.pretrained] = each
        for pruned in methods.values():
            by_model = {name: pruned[name] for name in names if name in pruned}
            label = _label(by_model)
            common = {ability: _common([curves(each, ability, None) for each in by_model.values()]) for ability in (RECALL, IN_CONTEXT)}
            if absent := [name for name in names if name not in by_model]:
                gaps.append(f"{label}: without {', '.join(absent)}, which was not pruned in this way")
            if lacking := [NAMES[ability] for ability, tasks in common.items() if not tasks]:
                gaps.append(f"{label}: nothing over models, there is no task of {' or of '.join(lacking)} with a curve of every model")
            elif len(by_model) < 2:
                gaps.append(f"{label}: nothing over models, there is only one")
            else:
                pairs = {
                    name: (curves(each, RECALL, common[RECALL]), curves(each, IN_CONTEXT, common[IN_CONTEXT]))
                    for name, each in by_model.items()
                }
                combined.append(Replicates(label, {name: each.label for name, each in by_model.items()}, pairs))
    return combined, gaps


def _label(by_model: Mapping[str, Series]) -> str:
    name, series = next(iter(by_model.items()))
    count = len(by_model)
    return f"{series.label.removeprefix(f'{name}, ')} over {count} trained model{'' if count == 1 else 's'} ({', '.join(by_model)})"


def _common(curves: Sequence[Sequence[Curve]]) -> list[str]:
    """Names of the tasks that have a curve for every model."""
    return [curve.name for curve in curves[0] if all(curve.name in [other.name for other in more] for more in curves[1:])]
