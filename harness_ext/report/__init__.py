"""The report of an experiment: one page, figures and tables, from sweep folders or lm-eval's own results.

docs/report.md says what is in it.
"""

from harness_ext.report.run import report
from harness_ext.report.trials import ReportError

__all__ = ["ReportError", "report"]
