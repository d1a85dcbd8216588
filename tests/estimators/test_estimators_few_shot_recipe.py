from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from repertoire.errors import ConfigError
from repertoire.estimators import FewShotRecipe
from repertoire.estimators._few_shot_recipe import _SWITCHES, _alike, _simplex


def crowds() -> tuple[np.ndarray, np.ndarray]:
    y = np.arange(150) % 5
    return np.random.default_rng(0).normal(size=(150, 8)) + 3 * np.eye(5, 8)[y], y


def in_stages(model: FewShotRecipe) -> FewShotRecipe:
    x, y = crowds()
    model.partial_fit(x[y < 3], y[y < 3])
    for c in (3, 4):
        model.partial_fit(x[y == c][:5], y[y == c][:5])
    return model


def test_with_all_switches_off_it_is_the_nearest_class_mean_of_unit_rows():
    x, y = crowds()
    model = in_stages(FewShotRecipe.plain())
    z = x / np.linalg.norm(x, axis=1, keepdims=True)
    means = np.stack([z[y == c][: (None if c < 3 else 5)].mean(0) for c in range(5)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_array_equal(model.predict(x), (z @ means.T).argmax(1))
    assert (model.parameters_, model.w1_.size, model.inputs_.size) == (0, 0, 0)


@pytest.mark.parametrize("switch", _SWITCHES)
def test_each_switch_by_itself_learns_and_counts_its_parameters(switch):
    x, y = crowds()
    model = in_stages(FewShotRecipe.plain(switch, hidden=6, epochs=3))
    assert (model.predict(x) == y).mean() > 0.8
    hidden = 24 if switch == "larger" else 6
    assert model.parameters_ == 2 * 8 * hidden + hidden + 8
    assert model.w1_.shape == (hidden, 8)
    assert len(model.inputs_[0]) == (8 if switch in ("fine_tuning", "subnetwork") else 0)


def test_what_later_stages_may_change():
    x, y = crowds()

    def changed(*switches: str) -> set[str]:
        model = FewShotRecipe.plain(*switches, hidden=6, epochs=2).partial_fit(x[y < 3], y[y < 3])
        before = {name: getattr(model, name).copy() for name in ("w1_", "b1_", "w2_", "b2_")}
        sums = model.sums_.copy()
        model.partial_fit(x[y == 3][:5], y[y == 3][:5])
        np.testing.assert_array_equal(model.sums_[:3], sums)
        return {name for name, value in before.items() if not np.array_equal(getattr(model, name), value)}

    assert changed("larger") == set()
    assert changed("subnetwork") == {"b1_", "b2_"}
    assert changed("fine_tuning", "subnetwork") == {"b1_", "b2_"}
    assert changed("fine_tuning") == {"w1_", "b1_", "w2_", "b2_"}


def test_the_contrastive_loss_is_the_mean_over_positives_and_a_simplex_has_equal_angles():
    generator = torch.Generator().manual_seed(0)
    z, group = F.normalize(torch.randn(7, 4, generator=generator)), torch.tensor([0, 0, 1, 1, 1, 2, 0])
    each = []
    for i in range(7):
        logits = {j: float(z[i] @ z[j]) / 0.1 for j in range(7) if j != i}
        total = np.log(sum(np.exp(v) for v in logits.values()))
        mine = [total - v for j, v in logits.items() if group[j] == group[i]]
        each += [np.mean(mine)] if mine else []
    torch.testing.assert_close(_alike(z, group), torch.tensor(np.mean(each), dtype=torch.float32))
    corners = _simplex(5, 9, generator)
    torch.testing.assert_close(corners @ corners.T, torch.eye(5) * 1.25 - 0.25, rtol=0, atol=1e-5)


def test_options_out_of_range():
    with pytest.raises(ConfigError, match="hidden is 0; expected 1 or more"):
        FewShotRecipe(hidden=0).fit([[0.0], [1.0]], [0, 1])
