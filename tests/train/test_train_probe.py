"""Probes of frozen features, against a slow reference and a corner or two."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from repertoire import train
from repertoire.errors import ConfigError, RunError
from repertoire.tasks import Outputs
from repertoire.train._probe import probe_outputs


def features(count: int, classes: int, seed: int, unlabelled: int = 0) -> Outputs:
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    rows = generator.normal(size=(count, 5)) + 1.5 * np.eye(5)[labels]
    labels[:unlabelled] = -1
    return Outputs(np.zeros((count, classes), np.float32), rows.astype(np.float32), labels)


def test_the_vote_of_neighbours_is_weighted_by_their_cosines():
    seen, unseen = features(40, 3, seed=0, unlabelled=4), features(15, 3, seed=1)
    result, about = probe_outputs("knn", seen, unseen, 3, neighbours=7, temperature=0.2)
    assert about == {"kind": "knn", "trained_on": 36, "neighbours": 7, "temperature": 0.2}
    for row, logits in zip(unseen.embeddings.astype(np.float64), result.logits, strict=True):
        cosines = [
            (float(row @ other / np.linalg.norm(row) / np.linalg.norm(other)), label)
            for other, label in zip(seen.embeddings.astype(np.float64), seen.labels, strict=True)
            if label >= 0
        ]
        votes = np.zeros(3)
        for cosine, label in sorted(cosines, reverse=True)[:7]:
            votes[label] += np.exp(cosine / 0.2)
        np.testing.assert_allclose(np.exp(logits), np.maximum(votes / votes.sum(), 1e-6), rtol=1e-3)


def test_there_may_be_fewer_images_than_neighbours():
    _, about = probe_outputs("knn", features(6, 3, seed=0), features(4, 3, seed=1), 3)
    assert about["neighbours"] == 6


def test_the_linear_probe_standardises_by_the_training_images():
    seen, unseen = features(60, 3, seed=0), features(20, 3, seed=1)
    result, _ = probe_outputs("linear", seen, unseen, 4)
    mean, std = seen.embeddings.mean(0), seen.embeddings.std(0)
    model = LogisticRegression(max_iter=1000).fit((seen.embeddings - mean) / std, seen.labels)
    expected = model.predict_proba((unseen.embeddings - mean) / std)
    np.testing.assert_allclose(np.exp(result.logits)[:, :3], np.maximum(expected, 1e-6), atol=1e-3)
    # A class without a training image is never seen, and no number is infinite.
    np.testing.assert_allclose(np.exp(result.logits)[:, 3], 1e-6, rtol=1e-3)


@pytest.mark.parametrize("kind", ["knn", "linear"])
def test_one_class_is_refused(kind):
    with pytest.raises(RunError, match="two classes or more"):
        probe_outputs(kind, features(6, 1, seed=0), features(4, 1, seed=1), 1)


def test_simclr_learns_bands_without_their_labels(tiny, options, tmp_path):
    """Trained without labels, the features tell the classes; the read-out beside them works as well."""
    run = train.fit(out=tmp_path / "a", method="simclr", **{**options, "epochs": 4})
    assert run.config.augment == "shift"
    for kind in ("knn", "linear"):
        assert run.probe(kind)["accuracy"] > 0.6
    assert run.probe("knn")["images"] == len(run.splits.test)


def test_a_method_with_a_loss_of_its_own_refuses_another(tiny, options, tmp_path):
    with pytest.raises(ConfigError, match="has a loss of its own"):
        train.fit(out=tmp_path / "a", method="simclr", loss="supcon", **options)
