"""Discovery of classes: unlabelled rows of features go into known classes and new groups, and how many is guessed.

    from repertoire.discover import SemiSupervisedKMeans
    labels = SemiSupervisedKMeans(classes="auto").fit_predict(X, y)  # y is -1 where no class is known

Rows are features that a frozen network gave, or the columns of a table. Known classes keep their numbers 0 to C - 1;
new groups are numbered from there on. How good the groups are, where the truth is known, is
`repertoire.metrics.clustering_accuracy(labels, truth, old=range(C))`.
"""

from repertoire.discover._base import Classes, Discoverer
from repertoire.discover._kmeans import KMeans, SemiSupervisedKMeans
from repertoire.discover._mixture import SemiSupervisedGMM
from repertoire.discover._number import ClassNumber, class_number
from repertoire.discover._pairs import ContrastivePseudo, RankStatistics
from repertoire.discover._prototypes import ProtoGCD, SimGCD
from repertoire.discover._relation import ClassRelation
from repertoire.discover._spectral import SpectralDiscovery
from repertoire.discover._tabular import HiddenClassSearch, TabularNCD, hidden_class_cv

__all__ = [
    "ClassNumber",
    "ClassRelation",
    "Classes",
    "ContrastivePseudo",
    "Discoverer",
    "HiddenClassSearch",
    "KMeans",
    "ProtoGCD",
    "RankStatistics",
    "SemiSupervisedGMM",
    "SemiSupervisedKMeans",
    "SimGCD",
    "SpectralDiscovery",
    "TabularNCD",
    "class_number",
    "hidden_class_cv",
]
