"""Networks that grow stage by stage on features, each stage fitted to what the ones before it left over."""

from repertoire.estimators.boosted._grownet import GrowNetClassifier, GrowNetRegressor
from repertoire.estimators.boosted._network import BoostedNetworkClassifier, BoostedNetworkRegressor

__all__ = [
    "BoostedNetworkClassifier",
    "BoostedNetworkRegressor",
    "GrowNetClassifier",
    "GrowNetRegressor",
]
