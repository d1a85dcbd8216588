"""A collection of trained networks: which of them suits new data, and weights made after theirs.

index = repertoire.zoo.Index(probes)
index.add("runs/a", run_a.predict(probe_images))
index.search(features, labels)[0].name
"""

from repertoire.zoo._generator import WeightGenerator
from repertoire.zoo._index import Found, Index
from repertoire.zoo._know2vec import Alignment, class_nodes, model_nodes
from repertoire.zoo._runs import add_runs, ask_runs, learn_from_runs, new_index, search_images
from repertoire.zoo._scores import leep, log_me, served

__all__ = [
    "Alignment",
    "Found",
    "Index",
    "WeightGenerator",
    "add_runs",
    "ask_runs",
    "class_nodes",
    "learn_from_runs",
    "leep",
    "log_me",
    "model_nodes",
    "new_index",
    "search_images",
    "served",
]
