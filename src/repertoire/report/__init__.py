"""The report of a run: one HTML file that needs nothing else and opens offline.

import repertoire
repertoire.report.write_report(repertoire.train.load("runs/demo"))

the diagnosis of one, `diagnose`, the report of a comparison of many, `write_comparison`, that of training in stages,
`write_stages`, that of self-training, `write_self_training`, that of known samples and unknown ones,
`write_novelty`, and that of classes which are only described, `write_described_classes`.
"""

from repertoire._aliases import answer_calls
from repertoire.report._comparison import write_comparison
from repertoire.report._described import write_described_classes
from repertoire.report._diagnosis import Diagnosis, diagnose
from repertoire.report._folds import write_folds
from repertoire.report._gallery import Explained, Gallery
from repertoire.report._groups import Group, write_groups
from repertoire.report._novelty import write_novelty
from repertoire.report._page import write_report
from repertoire.report._self_training import write_self_training
from repertoire.report._stages import write_stages

__all__ = [
    "Diagnosis",
    "Explained",
    "Gallery",
    "Group",
    "diagnose",
    "write_comparison",
    "write_described_classes",
    "write_folds",
    "write_groups",
    "write_novelty",
    "write_report",
    "write_self_training",
    "write_stages",
]


answer_calls(__name__, "run.report() writes the report of a run")
