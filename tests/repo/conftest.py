"""Tests need not wait for lm-eval to read all of its tasks."""

from __future__ import annotations

from lm_evals_tasks import lm_evals_tasks_are_read_once, templates_are_compiled_once  # noqa: F401 - fixtures
