from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn import metrics as peers

from repertoire.data import FeatureSet
from repertoire.errors import DataError
from repertoire.tasks import Number, Outputs


def samples(labels: np.ndarray) -> FeatureSet:
    count = len(labels)
    names = tuple(f"y{k}" for k in range(labels.shape[1]))
    keys = np.arange(count, dtype=np.uint64)
    return FeatureSet(np.ones((count, 2), np.float32), labels.astype(np.float32), [str(i) for i in keys], names, keys)


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_scikit_learn_in_the_units_of_the_data(seed: int):
    generator = np.random.default_rng(seed)
    truth = generator.normal(1000, 50, (40, 2)).astype(np.float32)
    task = Number.of(samples(truth))
    answers = (task.encode(truth) + generator.normal(0, 0.3, (40, 2))).astype(np.float32)
    found = task.score(Outputs(answers, answers, truth, answers))
    said = task.decode(answers)
    assert found["mae"] == pytest.approx(peers.mean_absolute_error(truth, said), rel=1e-5)
    assert found["r2"] == pytest.approx(peers.r2_score(truth, said), rel=1e-4)
    assert found["spearman"] == pytest.approx(
        np.mean([spearmanr(truth[:, k], said[:, k]).statistic for k in range(2)]), rel=1e-5
    )
    assert [row["number"] for row in found["per_number"]] == ["y0", "y1"]


def test_what_the_loss_sees_has_mean_zero_and_deviation_one():
    truth = np.random.default_rng(0).normal(-3, 7, (100, 1)).astype(np.float32)
    task = Number.of(samples(truth))
    encoded = task.encode(truth)
    assert abs(encoded.mean()) < 1e-5
    assert encoded.std() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(task.decode(encoded), truth, rtol=1e-5)


def test_missing_numbers_do_not_count_and_a_constant_one_is_no_division_by_zero():
    truth = np.array([[1.0, 5.0], [np.nan, 5.0], [3.0, 5.0]], dtype=np.float32)
    task = Number.of(samples(truth))
    answers = task.encode(np.nan_to_num(truth, nan=0.0))
    found = task.score(Outputs(answers, answers, truth, answers))
    assert found["samples"] == 3
    assert found["mae"] == pytest.approx(0, abs=1e-6)
    assert [row["samples"] for row in found["per_number"]] == [2, 3]
    assert found["per_number"][1]["r2"] is None


def test_a_number_that_is_never_known_is_refused():
    with pytest.raises(DataError, match="missing in every training sample"):
        Number.of(samples(np.array([[1.0, np.nan], [2.0, np.nan]])))
