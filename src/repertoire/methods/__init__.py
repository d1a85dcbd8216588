"""What is optimised: a method owns its modules and turns a batch into a loss."""

from repertoire.methods._base import Method, Step
from repertoire.methods._classifier import Classifier, Normalize
from repertoire.methods._dropout_views import DropoutViews
from repertoire.methods._embedding import Embedding
from repertoire.methods._relu_embedding import ReLUEmbedding
from repertoire.methods._simclr import SimCLR
from repertoire.methods._supervised import Supervised

__all__ = [
    "Classifier",
    "DropoutViews",
    "Embedding",
    "Method",
    "Normalize",
    "ReLUEmbedding",
    "SimCLR",
    "Step",
    "Supervised",
]
