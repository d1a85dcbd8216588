"""Estimators on features: `fit`, `predict` and `score`, as in scikit-learn, on rows that a frozen network gave.

Some learn a class from a few images (`evaluate_episodes` says how well), some from unlabelled rows beside a few
labelled ones, some grow a network on the features, stage by stage. All are scikit-learn estimators, so that they go
into its pipelines and searches.
"""

from repertoire.estimators._analytic import Analytic
from repertoire.estimators._centroid import NearestCentroid
from repertoire.estimators._embedding import FrozenEmbeddingClassifier
from repertoire.estimators._episodes import EpisodeScores, episodes, evaluate_episodes
from repertoire.estimators._few_shot_recipe import FewShotRecipe
from repertoire.estimators._hypernetwork import Hypernetwork
from repertoire.estimators._key_value import KeyValueClassifier
from repertoire.estimators._label_spreading import LabelSpreading
from repertoire.estimators._low_density import LowDensitySeparation
from repertoire.estimators._saved import FeatureEstimator, load_estimator, save_estimator
from repertoire.estimators._self_training import HybridSelfTraining
from repertoire.estimators._teen import PrototypeCalibration
from repertoire.estimators._unlabelled import labelled_rows, nobody_knows
from repertoire.estimators._virtual_outliers import VirtualOutliers
from repertoire.estimators.boosted import (
    BoostedNetworkClassifier,
    BoostedNetworkRegressor,
    GrowNetClassifier,
    GrowNetRegressor,
)

__all__ = [
    "Analytic",
    "BoostedNetworkClassifier",
    "BoostedNetworkRegressor",
    "EpisodeScores",
    "FeatureEstimator",
    "FewShotRecipe",
    "FrozenEmbeddingClassifier",
    "GrowNetClassifier",
    "GrowNetRegressor",
    "HybridSelfTraining",
    "Hypernetwork",
    "KeyValueClassifier",
    "LabelSpreading",
    "LowDensitySeparation",
    "NearestCentroid",
    "PrototypeCalibration",
    "VirtualOutliers",
    "episodes",
    "evaluate_episodes",
    "labelled_rows",
    "load_estimator",
    "nobody_knows",
    "save_estimator",
]
