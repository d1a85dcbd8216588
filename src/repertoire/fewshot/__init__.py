"""Learning a class from a few images: classifiers on frozen features, and episodes to judge them by."""

from repertoire.fewshot._centroid import NearestCentroid
from repertoire.fewshot._embedding import FrozenEmbeddingClassifier
from repertoire.fewshot._episodes import EpisodeScores, episodes, evaluate_episodes

__all__ = ["EpisodeScores", "FrozenEmbeddingClassifier", "NearestCentroid", "episodes", "evaluate_episodes"]
