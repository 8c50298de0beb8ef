"""Checks for authors of tasks and plugins.

``pytest --task-configs DIR`` checks lm-eval task definitions. The checks can also be called as functions. ``check_static`` needs only the
YAML; ``check_documents``, ``check_oracle`` and ``check_random`` build the task. The package also provides the pytest fixtures ``tiny_lm``,
``oracle_lm`` and ``random_lm``.

``PrunerContract``, ``AllocationContract``, ``CalibrationContract`` and ``TaskFolderContract`` are classes of tests that plugins inherit.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness_ext.testing.built import Built, NeedsDownloadError
    from harness_ext.testing.contracts.allocation import AllocationContract
    from harness_ext.testing.contracts.calibration import CalibrationContract
    from harness_ext.testing.contracts.pruner import PrunerContract
    from harness_ext.testing.contracts.tasks import TaskFolderContract
    from harness_ext.testing.documents import check_documents
    from harness_ext.testing.findings import Finding, NotCheckedError
    from harness_ext.testing.models import OracleLM, RandomLM, make_tiny_lm
    from harness_ext.testing.pipeline import check_oracle, check_random
    from harness_ext.testing.plugin import oracle_lm, random_lm, tiny_lm
    from harness_ext.testing.static import check_static, names_below

_HOME = {
    "AllocationContract": "contracts.allocation",
    "CalibrationContract": "contracts.calibration",
    "PrunerContract": "contracts.pruner",
    "TaskFolderContract": "contracts.tasks",
    "Finding": "findings",
    "check_static": "static",
    "names_below": "static",
    "NotCheckedError": "findings",
    "Built": "built",
    "NeedsDownloadError": "built",
    "check_documents": "documents",
    "check_oracle": "pipeline",
    "check_random": "pipeline",
    "OracleLM": "models",
    "RandomLM": "models",
    "make_tiny_lm": "models",
    "tiny_lm": "plugin",
    "oracle_lm": "plugin",
    "random_lm": "plugin",
}

__all__ = [
    "AllocationContract",
    "Built",
    "CalibrationContract",
    "Finding",
    "NeedsDownloadError",
    "NotCheckedError",
    "OracleLM",
    "PrunerContract",
    "RandomLM",
    "TaskFolderContract",
    "check_documents",
    "check_oracle",
    "check_random",
    "check_static",
    "make_tiny_lm",
    "names_below",
    "oracle_lm",
    "random_lm",
    "tiny_lm",
]


def __getattr__(name: str) -> Any:  # lazy: lm-eval takes seconds to import, and pytest imports this package in every run
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
