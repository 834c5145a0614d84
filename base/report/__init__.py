"""The report that test.py writes beside a checkpoint."""

from base.report.report import watched, write_report

__all__ = ["watched", "write_report"]
