from __future__ import annotations

import numpy as np
import pytest
import torch

from repertoire.errors import ConfigError
from repertoire.estimators import KeyValueClassifier


def crowds(count: int = 90, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    y = np.arange(count) % classes
    return np.random.default_rng(0).normal(size=(count, 6)) + 4 * np.eye(classes, 6)[y], y


def test_a_step_is_one_of_gradient_descent_on_the_cross_entropy_of_the_mean():
    """One batch, one epoch, two classes of five to come: the values are minus the gradient, times the rate and the
    number of codebooks, also those of classes to come."""
    x, y = crowds(12)
    model = KeyValueClassifier(codebooks=5, keys=4, rate=0.7, epochs=1, batch_size=12)
    model.partial_fit(x, y, classes=range(5))
    cells = torch.from_numpy(model._cells(x))
    values = torch.zeros(5 * 4, 5, dtype=torch.float64, requires_grad=True)
    torch.nn.functional.cross_entropy(values[cells].mean(1), torch.from_numpy(y)).backward()
    assert values.grad is not None
    expected = (-0.7 * 5 * values.grad).T.reshape(5, 5, 4)
    np.testing.assert_allclose(model.values_, expected[:3], rtol=1e-4, atol=1e-6)
    for unseen in expected[3:]:
        np.testing.assert_allclose(model.unseen_, unseen, rtol=1e-4, atol=1e-6)


def test_classes_that_come_one_by_one_are_learned_as_if_all_had_been_there():
    """With classes that were announced, the order of the columns is all that differs from a head with all of them."""
    x, y = crowds(30)
    model = KeyValueClassifier(codebooks=5, keys=4, rate=1.0, epochs=1, batch_size=10).prepare(x)
    values = torch.zeros(5 * 4, 3, dtype=torch.float64)
    for c in (2, 0, 1):
        rows = x[y == c]
        model.partial_fit(rows, y[y == c], **({"classes": range(3)} if c == 2 else {}))
        values.requires_grad_()
        logits = values[torch.from_numpy(model._cells(rows))].mean(1)
        (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, torch.full((10,), c)), values)
        values = values.detach() - 5 * gradient
    np.testing.assert_allclose(model.values_, values.T.reshape(3, 5, 4), rtol=1e-4, atol=1e-6)


def test_what_is_stored_where_no_row_of_a_stage_comes_is_left_alone():
    x, y = crowds()
    model = KeyValueClassifier(codebooks=6, keys=12).prepare(x)
    model.partial_fit(x[y < 2], y[y < 2])
    before, keys, unseen = model.values_.copy(), model.keys_.copy(), model.unseen_.copy()
    model.partial_fit(x[y == 2], y[y == 2])
    fetched = np.zeros(6 * 12, dtype=bool)
    fetched[model._cells(x[y == 2])] = True
    left = ~fetched.reshape(6, 12)
    assert left.any()
    np.testing.assert_array_equal(model.values_[:2][:, left], before[:, left])
    np.testing.assert_array_equal(model.values_[2][left], unseen[left])
    np.testing.assert_array_equal(model.keys_, keys)
    assert (model.predict(x) == y).mean() > 0.8


def test_keys_given_beforehand_outlast_fit_and_others_do_not():
    x, y = crowds()
    model = KeyValueClassifier(codebooks=3, keys=5).prepare(x)
    keys = model.keys_.copy()
    np.testing.assert_array_equal(model.fit(x[:6], y[:6]).keys_, keys)
    plain = KeyValueClassifier(codebooks=3, keys=5).fit(x[:6], y[:6])
    assert not np.array_equal(plain.keys_, keys)
    assert not np.array_equal(
        plain.fit(x + 9, y).keys_, KeyValueClassifier(codebooks=3, keys=5).fit(x[:6], y[:6]).keys_
    )


def test_options_out_of_range():
    with pytest.raises(ConfigError, match="codebooks is 0; expected 1 or more"):
        KeyValueClassifier(codebooks=0).fit([[0.0], [1.0]], [0, 1])
