from __future__ import annotations

import numpy as np
import pytest

from repertoire.errors import ShapeError
from repertoire.protocols import measure


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("whole", [True, False])
def test_agrees_with_the_formulas(seed: int, whole: bool):
    generator = np.random.default_rng(seed)
    count = 2 + seed % 4
    matrix = generator.uniform(size=(count, count))
    if not whole:
        matrix[np.triu_indices(count, 1)] = np.nan
    found = measure(matrix)
    old = range(count - 1)
    mean = {
        "accuracy": sum(matrix[-1][i] for i in range(count)) / count,
        "accuracy_of_curve": sum(sum(matrix[t][: t + 1]) / (t + 1) for t in range(count)) / count,
        "learning": sum(matrix[i][i] for i in range(count)) / count,
        "forgetting": sum(max(matrix[t][i] for t in range(i, count - 1)) - matrix[-1][i] for i in old) / (count - 1),
        "backward_transfer": sum(matrix[-1][i] - matrix[i][i] for i in old) / (count - 1),
    }
    if whole:
        mean["zero_shot"] = sum(matrix[i - 1][i] for i in range(1, count)) / (count - 1)
    assert found.keys() == mean.keys()
    for name, value in mean.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name


def test_of_one_stage_nothing_can_be_forgotten():
    assert measure(np.array([[0.5]])) == {"accuracy": 0.5, "accuracy_of_curve": 0.5, "learning": 0.5}


@pytest.mark.parametrize(
    "matrix", [np.zeros((2, 3)), np.zeros((0, 0)), np.zeros(3), np.array([[0.1, 0.2], [np.nan, 0.3]])]
)
def test_a_matrix_with_gaps_or_another_shape_is_refused(matrix: np.ndarray):
    with pytest.raises(ShapeError, match="matrix must"):
        measure(matrix)
