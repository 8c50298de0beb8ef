"""What a model loses first between items of equal difficulty, for the pages that scripts write."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from harness_ext.report.abilities import classify
from harness_ext.report.analysis import Analysis, analyse
from harness_ext.report.claims import MAIN_DROP
from harness_ext.report.difficulty_figure import NAME, difficulty_figure
from harness_ext.report.reading import read
from harness_ext.report.trials import LoadedTrial, merge, share_chances
from harness_ext.statistics.checks import RESAMPLES


def merged(sweeps: Sequence[Path]) -> list[LoadedTrial]:
    """The trials of sweep folders, each once."""
    trials, _ = read(sweeps)
    share_chances(trials)
    return merge(trials)


def analysed(trials: Sequence[LoadedTrial], resamples: int = RESAMPLES) -> Analysis:
    """The analysis of a report, with the abilities that the tasks declare."""
    return analyse(trials, classify(trials), resamples=resamples)


def equal_difficulty(sweeps: Sequence[Path], picture: Path, resamples: int = RESAMPLES) -> dict[str, str]:
    """Draws the figure of critical sparsities against difficulty.

    Args:
        sweeps: folders of sweeps.
        picture: the PNG to write.

    Returns:
        A sentence for each method; empty where nothing can be drawn, as without the answers of the dense model.
    """
    analysis = analysed(merged(sweeps), resamples)
    with TemporaryDirectory() as folder:
        if difficulty_figure(analysis, Path(folder)) is None:
            return {}
        shutil.copyfile(Path(folder) / f"{NAME}.png", picture)
    sentences = {series.label: analysis.difficulty.sentence(series.label, MAIN_DROP) for series in analysis.series}
    return {label: sentence for label, sentence in sentences.items() if sentence}
