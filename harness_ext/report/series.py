"""Groups trials into series. A series is one model pruned in one way at rising sparsities, or quantised in one way to several bits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from harness_ext.report.trials import SWITCHES, LoadedTrial, ReportError, argument_notes, check_same


@dataclass
class Series:
    """A model pruned in one way at several sparsities, with one calibration seed or more.

    Args:
        model: digest of the dense weights.
        pretrained: name of the model.
        settings: pruning settings, without sparsity and seed.
        dense: the trial of the dense model, if there is one.
        label: a short name that no other series has.
        points: trials by sparsity and calibration seed. The sparsity is the achieved one, rounded to 0.001.
        quantised: whether ``points`` are by bits in place of sparsities, and the sparsity is one of the settings.
    """

    model: str
    pretrained: str
    settings: dict[str, str]
    dense: LoadedTrial | None
    label: str = ""
    points: dict[float, dict[int | None, LoadedTrial]] = field(default_factory=dict)
    quantised: bool = False

    @property
    def seeds(self) -> list[int | None]:
        return sorted({seed for by_seed in self.points.values() for seed in by_seed}, key=lambda seed: (seed is not None, seed or 0))

    @property
    def trials(self) -> list[LoadedTrial]:
        return [by_seed[seed] for _, by_seed in sorted(self.points.items()) for seed in self.seeds if seed in by_seed]


def dense_trials(trials: Iterable[LoadedTrial]) -> dict[str, LoadedTrial]:
    """The dense trials, by the digest of their weights."""
    return {trial.dense_digest: trial for trial in trials if trial.is_dense}


def collect(trials: Sequence[LoadedTrial], axis: str = "sparsity") -> tuple[list[Series], list[Series], list[str]]:
    """Groups trials into series over sparsities, and series over bits. Also returns what is in no series.

    Args:
        axis: name of the axis of the figures.

    Raises:
        ReportError: results of different task versions or items are mixed, or two models have one name.
    """
    check_comparable(trials)
    gaps = argument_notes(trials)
    dense, series_by_key = dense_trials(trials), dict[tuple[str, str], Series]()
    for trial in trials:
        if trial.is_dense or trial.weight_bits is not None:
            continue
        if trial.pattern:
            gaps.append(f"{trial.name}: in the table and not in curves, N:M patterns are another constraint than a ratio")
            continue
        key = (trial.dense_digest, repr(sorted(trial.settings.items())))
        series = series_by_key.setdefault(key, Series(trial.dense_digest, trial.pretrained, trial.settings, dense.get(trial.dense_digest)))
        by_seed = series.points.setdefault(round(trial.achieved, 3), {})
        if trial.seed in by_seed:
            gaps.append(
                f"{trial.name}: in the table and not in curves, the achieved sparsity of {trial.achieved:.3f} is also that of "
                f"{by_seed[trial.seed].name}"
            )
            continue
        by_seed[trial.seed] = trial
    ordered = sorted(series_by_key.values(), key=_place)
    quantised = _over_bits(trials, dense)
    label([*ordered, *quantised])
    if quantised:
        gaps.append(
            f"no critical sparsity and no disparity of {', '.join(series.label for series in quantised)}: bits are not a sparsity; the "
            f"scores are in the tables, and in figures {'against bits' if axis == 'bits' else 'with --axis bits'}"
        )
    for digest, name in sorted({(each.model, each.pretrained) for each in [*ordered, *quantised] if each.dense is None}):
        gaps.append(
            f"{name} ({digest}): there is no dense trial, so retained fractions, tests, flips, critical sparsities, curves and the "
            f"disparity cannot be computed; evaluate it with sparsity=0"
        )
    return ordered, quantised, gaps


def _over_bits(trials: Sequence[LoadedTrial], dense: Mapping[str, LoadedTrial]) -> list[Series]:
    """The series of quantised trials: one for each method and sparsity."""
    series_by_key: dict[tuple[str, str], Series] = {}
    for trial in trials:
        if trial.weight_bits is not None:
            settings = {name: value for name, value in trial.settings.items() if name != "bits"} | {"sparsity": trial.sparsity}
            new = Series(trial.dense_digest, trial.pretrained, settings, dense.get(trial.dense_digest), quantised=True)
            series = series_by_key.setdefault((trial.dense_digest, repr(sorted(settings.items()))), new)
            series.points.setdefault(float(trial.weight_bits), {})[trial.seed] = trial
    return sorted(series_by_key.values(), key=_place)


def _place(series: Series) -> tuple[int, str, list[tuple[str, str]]]:
    """The place of a series among others: small models come first."""
    return series.dense.nonzero or 0 if series.dense else 0, series.pretrained, sorted(series.settings.items())


def check_comparable(trials: Sequence[LoadedTrial]) -> None:
    """Checks that results can be put side by side: versions of tasks over all trials, and items within a model.

    Raises:
        ReportError: two trials that cannot, with the names of both.
    """
    by_model: dict[tuple[str, str], LoadedTrial] = {}
    by_task: dict[str, LoadedTrial] = {}
    by_name: dict[str, LoadedTrial] = {}
    for trial in trials:
        other = by_name.setdefault(trial.pretrained, trial)
        if other.dense_digest != trial.dense_digest:
            raise ReportError(
                f"two models are called {trial.pretrained}, with weights {other.dense_digest} and {trial.dense_digest}: "
                f"{other.name} and {trial.name}"
            )
        for task, score in trial.tasks.items():
            first_of_model = by_model.setdefault((trial.dense_digest, task), trial)
            check_same(first_of_model, first_of_model.tasks[task], trial, score)
            first_trial = by_task.setdefault(task, trial)
            compared = first_trial.tasks[task]
            if compared.version != score.version:
                check_same(first_trial, compared, trial, score)


def label(series: Sequence[Series], *, several: bool | None = None) -> None:
    """Gives each series a label: the method, and the other settings that differ among the series.

    Args:
        several: whether labels name the model; by default, if the series are of several models.
    """
    several = len({one.model for one in series}) > 1 if several is None else several
    names = dict.fromkeys(name for one in series for name in one.settings if name not in ("pruner", "sparsity", "before"))
    for one in series:
        parts = [one.pretrained] if several else []
        parts.append(one.settings.get("pruner", "pruned"))
        if "before" in one.settings:
            parts[-1] += f" after {one.settings['before']}"
        if one.settings.get("sparsity", "0") != "0":
            parts.append(f"sparsity {one.settings['sparsity']}")
        for name in names:
            if name in one.settings and len({other.settings.get(name) for other in series if _comparable(name, one, other)}) > 1:
                value = one.settings[name]
                parts.append(f"{name}={value}" if "." in name or name in SWITCHES else value.strip('"'))
        one.label = ", ".join(parts)
    seen: dict[str, Series] = {}
    for one in series:
        if one.label in seen:
            one.label += f" ({one.model[:6]})"
        seen[one.label] = one


def _comparable(name: str, one: Series, other: Series) -> bool:
    """Whether a setting can be compared between two series. Options of different methods cannot."""
    kind, dot, _ = name.partition(".")
    return name in SWITCHES or (name in other.settings and (not dot or one.settings.get(kind) == other.settings.get(kind)))
