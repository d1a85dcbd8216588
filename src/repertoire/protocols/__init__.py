"""Protocols: training in stages, one after another, and what is left of each at the end.

    outcome = protocols.follow("classes:step=2", config)
    outcome.matrix          # accuracy after stage t on the test samples of stage i
    outcome.metrics         # average accuracy, forgetting, backward transfer, bounds

A protocol says what each stage brings; `follow` trains a method through them, a run a stage, with a memory of samples
where the method asks for one, and goes on from wherever it was interrupted. `observe` does the same with an estimator
on features. `add_stage` gives a run that is there one stage more, of data that has just come in.
"""

from repertoire.protocols._add_stage import CONTINUED, Continued, add_stage
from repertoire.protocols._base import Protocol, StageData, joined
from repertoire.protocols._classes import ClassIncremental
from repertoire.protocols._domains import DomainIncremental
from repertoire.protocols._follow import follow
from repertoire.protocols._measure import measure
from repertoire.protocols._memory import Memory, Store
from repertoire.protocols._observe import observe
from repertoire.protocols._outcome import Outcome
from repertoire.protocols._patches import Patches, memory_of
from repertoire.protocols._si_blurry import SiBlurry

__all__ = [
    "CONTINUED",
    "ClassIncremental",
    "Continued",
    "DomainIncremental",
    "Memory",
    "Outcome",
    "Patches",
    "Protocol",
    "SiBlurry",
    "StageData",
    "Store",
    "add_stage",
    "follow",
    "joined",
    "measure",
    "memory_of",
    "observe",
]
