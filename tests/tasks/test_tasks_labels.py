from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as peers

from repertoire.tasks import Labels, Outputs


def outputs(logits: np.ndarray, labels: np.ndarray) -> Outputs:
    return Outputs(logits.astype(np.float32), logits.astype(np.float32), labels.astype(np.uint8))


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_scikit_learn(seed: int):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, (60, 4))
    # Few different values, so that there are ties.
    logits = np.round(generator.normal(size=(60, 4)) + labels, 1)
    found = Labels(tuple("abcd")).score(outputs(logits, labels))
    single = logits.astype(np.float32)
    expected = [peers.average_precision_score(labels[:, k], single[:, k]) for k in range(4)]
    np.testing.assert_allclose([row["average_precision"] for row in found["per_label"]], expected, atol=1e-6)
    assert found["mean_average_precision"] == pytest.approx(np.mean(expected), abs=1e-6)
    assert found["macro_auroc"] == pytest.approx(peers.roc_auc_score(labels, single), abs=1e-6)
    said = single > 0
    assert found["micro_f1"] == pytest.approx(peers.f1_score(labels, said, average="micro"))
    assert found["macro_f1"] == pytest.approx(peers.f1_score(labels, said, average="macro"))
    assert found["hamming"] == pytest.approx(peers.hamming_loss(labels, said))
    assert found["exact_match"] == pytest.approx(peers.accuracy_score(labels, said))
    probability = 1 / (1 + np.exp(-single.astype(np.float64)))
    assert found["nll"] == pytest.approx(peers.log_loss(labels.ravel(), probability.ravel()), abs=1e-6)


def test_what_nobody_knows_does_not_count():
    logits = np.array([[1.0, -1.0], [9.0, 9.0], [-1.0, 2.0]])
    labels = np.array([[1, 255], [255, 255], [0, 1]])
    found = Labels(("a", "b")).score(outputs(logits, labels))
    assert found["samples"] == 2
    assert found["exact_match"] == 1
    assert found["hamming"] == 0
    assert found["one_error"] == 0
    assert found["per_label"][1]["samples"] == 1
    assert found["per_label"][1]["auroc"] is None
    assert found["nll"] == pytest.approx((2 * math.log1p(math.exp(-1)) + math.log1p(math.exp(-2))) / 3)


def test_nothing_known_at_all():
    assert Labels(("a",)).score(outputs(np.ones((2, 1)), np.full((2, 1), 255))) == {"samples": 0}
