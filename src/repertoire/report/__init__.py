"""The report of a run: one HTML file that needs nothing else and opens offline.

import repertoire
repertoire.report.write_report(repertoire.train.load("runs/demo"))
"""

from repertoire.report._page import write_report

__all__ = ["write_report"]
