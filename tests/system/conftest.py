"""lm-eval's own tasks are read once in a process, and a test need not wait for figures that it does not look at."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def lm_evals_tasks_are_read_once() -> Iterator[None]:
    """A ``TaskManager`` with lm-eval's tasks reads thousands of files, which takes seconds each time."""
    from lm_eval.tasks import _index

    own, load = Path(str(_index.__file__)).parent, _index.load_yaml
    contents: dict[tuple[Any, ...], Any] = {}

    def load_once(path: Path, **options: Any) -> Any:
        if not Path(path).is_relative_to(own):
            return load(path, **options)
        key = (path, *sorted(options.items()))
        if key not in contents:
            contents[key] = load(path, **options)
        return copy.deepcopy(contents[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_index, "load_yaml", load_once)
        yield


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
