"""scores of many transfers -> one page of tables, curves and pictures"""

from polyteach.reporting.report import report

__all__ = ["report"]
