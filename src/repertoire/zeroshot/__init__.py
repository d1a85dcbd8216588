"""Zero-shot classification: classes that are described, and of which there may be no sample at all.

A zero-shot classifier learns from features `[N, d]` of some classes, and from descriptions `[C, a]` of all, how the two
belong together, and predicts among whatever classes it is given descriptions of. What decides between seen and unseen
classes (`calibrated_stacking`), what is measured of both (`ausuc`), and how wrong descriptions alone must be
(`worst_case_error`), are functions beside them; so is what reaches classes by their distances to others
(`frechet_mean`).
"""

from repertoire.zeroshot._attribute_match import AttributeMatch
from repertoire.zeroshot._base import ZeroShotClassifier
from repertoire.zeroshot._embedding_regression import EmbeddingRegression
from repertoire.zeroshot._eszsl import ESZSL

__all__ = [
    "ESZSL",
    "AttributeMatch",
    "EmbeddingRegression",
    "ZeroShotClassifier",
]
