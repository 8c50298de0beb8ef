"""Tests need wait neither for lm-eval to read all of its tasks, nor for figures that they do not look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lm_evals_tasks import lm_evals_tasks_are_read_once, templates_are_compiled_once  # noqa: F401 - fixtures


@pytest.fixture
def quick_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of a report are drawn once, as SVG and without a layout, which takes a quarter of the time. Their PNG files are empty.

    For tests that look neither at a PNG file nor at the place of anything in a figure. The report ``made`` has whole figures in any case.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    def save(figure: Figure, file: Any, *, metadata: dict[str, Any], **options: Any) -> None:
        if options.get("format") == "svg":
            figure.set_layout_engine("none")
            FigureCanvasSVG(figure).print_svg(file, metadata=metadata)
        else:
            Path(file).touch()

    monkeypatch.setattr(Figure, "savefig", save)
