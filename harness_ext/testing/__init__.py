"""Checks for authors of tasks and plugins.

``pytest --task-configs DIR`` checks lm-eval task definitions. The checks can also be called as functions. ``check_static`` needs only the
YAML; ``check_documents``, ``check_oracle`` and ``check_random`` build the task. The package also provides the pytest fixtures ``tiny_lm``,
``oracle_lm`` and ``random_lm``.

``PrunerContract``, ``QuantizerContract``, ``AllocationContract``, ``CalibrationContract`` and ``TaskFolderContract`` are classes of tests
that plugins inherit.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness_ext.testing.built import Built as Built
    from harness_ext.testing.built import NeedsDownloadError as NeedsDownloadError
    from harness_ext.testing.contracts.allocation import AllocationContract as AllocationContract
    from harness_ext.testing.contracts.calibration import CalibrationContract as CalibrationContract
    from harness_ext.testing.contracts.pruner import PrunerContract as PrunerContract
    from harness_ext.testing.contracts.quantizer import QuantizerContract as QuantizerContract
    from harness_ext.testing.contracts.tasks import TaskFolderContract as TaskFolderContract
    from harness_ext.testing.documents import check_documents as check_documents
    from harness_ext.testing.findings import Finding as Finding
    from harness_ext.testing.findings import NotCheckedError as NotCheckedError
    from harness_ext.testing.models import OracleLM as OracleLM
    from harness_ext.testing.models import RandomLM as RandomLM
    from harness_ext.testing.models import make_tiny_lm as make_tiny_lm
    from harness_ext.testing.pipeline import check_oracle as check_oracle
    from harness_ext.testing.pipeline import check_random as check_random
    from harness_ext.testing.plugin import oracle_lm as oracle_lm
    from harness_ext.testing.plugin import random_lm as random_lm
    from harness_ext.testing.plugin import tiny_lm as tiny_lm
    from harness_ext.testing.static import check_static as check_static
    from harness_ext.testing.static import names_below as names_below

_HOMES = {
    "built": ("Built", "NeedsDownloadError"),
    "contracts.allocation": ("AllocationContract",),
    "contracts.calibration": ("CalibrationContract",),
    "contracts.pruner": ("PrunerContract",),
    "contracts.quantizer": ("QuantizerContract",),
    "contracts.tasks": ("TaskFolderContract",),
    "documents": ("check_documents",),
    "findings": ("Finding", "NotCheckedError"),
    "models": ("OracleLM", "RandomLM", "make_tiny_lm"),
    "pipeline": ("check_oracle", "check_random"),
    "plugin": ("oracle_lm", "random_lm", "tiny_lm"),
    "static": ("check_static", "names_below"),
}
__all__ = sorted(name for names in _HOMES.values() for name in names)  # noqa: PLE0605 - a literal list would say it twice


def __getattr__(name: str) -> Any:  # lazy: lm-eval takes seconds to import, and pytest imports this package in every run
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
