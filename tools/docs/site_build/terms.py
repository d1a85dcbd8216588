"""What the abbreviated names of metrics mean, for the reader of a paper's page who does not work in its field."""

from __future__ import annotations

__all__ = ["explained"]

_TERMS = {
    "MAP@R": "the mean over queries of the average precision of the R nearest samples, where R others share its class",
    "mean average precision": "the mean over queries or labels of the area under the precision-recall curve",
    "AUROC": "the probability that a sample of one kind scores above one of the other; 0.5 is chance",
    "OSCR": "the area under the curve of known samples accepted and classified rightly against unknown ones accepted",
    "-way": "an N-way K-shot task has N classes, each known by K examples",
    "rank correlation": "(Spearman's unless another is named) how well two orders agree, from -1 to 1; 0 is not at all",
    "Spearman correlation": "how well two orders agree, from -1 to 1; 0 is not at all",
    "Pearson correlation": "how nearly two quantities lie on a rising line; 1 is on it, 0 no relation",
    "R²": "the share of the variance that a prediction accounts for; 0 is the mean, 1 is exact",
    "F1": "the harmonic mean of precision and recall",
    "linear probe": "a linear classifier or regression that is fitted to frozen features",
    "linear-probe": "a linear classifier or regression that is fitted to frozen features",
    "expected calibration error": "the mean gap between confidence and accuracy, samples being binned by confidence",
    "effective rank": "the exponential of the entropy of the singular values: how many directions are in use",
    "seen-unseen curve": "accuracy on seen classes against that on unseen ones, as the scores of the seen are lowered",
    "risk-coverage curve": "error against the share of samples answered, as the doubtful are left out first",
    "harmonic mean": "of two accuracies, twice their product over their sum: low as soon as one of them is low",
    "label ranking average precision": "over a sample's labels, the mean share of them among those ranked as high",
    "intersection over union": "the area that two regions share, over the area that either covers",
    "Gram matrix": "the inner products of all pairs",
    "knee": "where the curve of accuracy over the share of weights removed stands highest above its chord",
    "last stage": "classes arrive in stages, which are trained on one after the other",
    "over stages": "classes arrive in stages, which are trained on one after the other",
    "rows of new classes": "samples of classes of which none has a label, but for those that are bought; the groups "
    "found are matched to classes by the best assignment",
}

_WRITTEN = {"-way": "*N*-way *K*-shot", "linear-probe": "Linear probe"}


def explained(metric: str) -> str:
    """A sentence on the terms in the name of a metric; "" where it has none that need one."""
    found: dict[str, str] = {}
    for term, meaning in _TERMS.items():
        if term in metric and meaning not in found.values():
            found[term] = meaning
    return " ".join(f"{_named(term)}: {meaning}." for term, meaning in found.items())


def _named(term: str) -> str:
    return _WRITTEN.get(term, term[0].upper() + term[1:])
