"""Each explainer is nearest to the network where it is at home, and the rule to choose finds that out."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from repertoire import registry
from repertoire.errors import ConfigError, ShapeError, UnknownName
from repertoire.explain import CLIME, GradCAM, LocalApproximation, Occlusion, attribution_table, choose_explainer
from repertoire.explain.trust._choose_explainer import EIGHT


def mlp(columns: int = 5) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(columns, 24), nn.Tanh(), nn.Linear(24, 3)).double()


def rows(count: int = 6, columns: int = 5) -> Tensor:
    return 2 * torch.randn(count, columns, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def cnn() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 3)
    ).double()


def build(name: str, **options: object) -> LocalApproximation:
    sigma = {"sigma": 0.8} if name in ("c-lime", "smooth-grad") else {}
    return registry.get("explainers", name).factory(**sigma, **options)


@pytest.mark.parametrize("name", EIGHT)
def test_each_has_the_lowest_error_at_home(name):
    """On the very points of the fit it is the minimum, so that nothing can be lower; and all others are higher."""
    model, x = mlp(), rows()
    explainers = {other: build(other) for other in EIGHT}
    home = explainers[name]
    choice = choose_explainer(model, x, home, explainers, 1, seed=home.seed)
    twins = {"gradient", "gradient-x-input"}  # the same linear function in other units
    others = [error for other, error in choice.errors.items() if other != name and {name, other} != twins]
    assert choice.errors[name] < min(others)
    assert choice.best in ({name} | twins if name in twins else {name})
    if name in twins:
        assert sum(error < 1e-20 for error in choice.errors.values()) == 2


@pytest.mark.parametrize("name", ["occlusion", "kernel-shap", "lime", "c-lime"])
def test_images_with_components(name):
    model, x = cnn(), torch.rand(2, 2, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    options = {"patch": 2} if name != "kernel-shap" else {"patch": 2, "samples": 600}
    home = build(name, **options)
    explainers = {other: build(other) for other in EIGHT if other != name}
    choice = choose_explainer(model, x, home, {**explainers, name: home}, seed=0)
    assert choice.best == name
    assert next(iter(choice.errors)) == name


def slow_error(model: nn.Module, x: Tensor, slope: Tensor, target: int, sigma: float, noise: Tensor) -> float:
    """Of C-LIME, for one row, by hand: the variance of what a linear function leaves."""
    with torch.no_grad():
        left = [float(model((x + sigma * u)[None])[0, target] - slope @ (sigma * u)) for u in noise]
    mean = sum(left) / len(left)
    return sum((value - mean) ** 2 for value in left) / len(left)


def test_the_error_is_what_it_says():
    model, x = mlp(), rows(3)
    home = CLIME(samples=50, sigma=0.7, seed=4)
    slopes = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    errors, constant = home.errors(model, x, slopes, 2)
    noise = torch.randn(50, 5, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    for i in range(3):
        assert float(constant[i]) == pytest.approx(slow_error(model, x[i], slopes[0, i] * 0, 2, 0.7, noise))
        for e in range(2):
            assert float(errors[e, i]) == pytest.approx(slow_error(model, x[i], slopes[e, i], 2, 0.7, noise))


def test_errors_of_occlusion_and_shapley():
    """Occlusion is met exactly; in a sum of shares, what a constant is missing is shared out evenly."""
    model, x = mlp(3), rows(2, 3)
    hide = Occlusion()
    errors, constant = hide.errors(model, x, hide.slopes(model, x, 0)[None], 0)
    assert errors.max() < 1e-25
    assert constant.min() > 1e-4
    shap = build("kernel-shap")
    with torch.no_grad():
        full, empty = model(x)[:, 0], model(torch.zeros_like(x))[:, 0]
        total, weights = torch.zeros(2, dtype=torch.float64), 0.0
        for bits in range(1, 7):
            kept = torch.tensor([(bits >> j) & 1 for j in range(3)], dtype=torch.float64)
            size = int(kept.sum())
            weight = 2 / (3 * size * (3 - size))
            value = model(x * kept)[:, 0]
            total += weight * (value - empty - (full - empty) * size / 3) ** 2  # of a constant: equal shares
            weights += weight
    _, constant = shap.errors(model, x, torch.zeros(1, 2, 3, dtype=torch.float64), 0)
    torch.testing.assert_close(constant, total / weights)


@pytest.mark.parametrize("name", EIGHT)
def test_slopes_say_what_the_attribution_says(name):
    """In units of the score for each unit of input: a component's share, when its values go from baseline to input."""
    explainer = build(name, normalize=False)
    model, x = mlp(), rows()
    worth, slopes = explainer(model, x, 1), explainer.slopes(model, x, 1)
    by_noise = name in ("c-lime", "smooth-grad", "gradient")
    torch.testing.assert_close(slopes if by_noise else slopes * x, worth)
    targets = torch.tensor([[0, 1]] * 6)
    torch.testing.assert_close(explainer.slopes(model, x, targets)[:, 1], slopes)
    picture = torch.rand(2, 2, 6, 6, dtype=torch.float64) + 0.1
    slopes = explainer.slopes(cnn(), picture, 0)
    assert slopes.shape == picture.shape
    if name in ("lime", "kernel-shap", "occlusion"):
        worth = build(name, normalize=False, patch=3).slopes(cnn(), picture, 0) * picture
        whole = build(name, normalize=False, patch=3)(cnn(), picture, 0)
        torch.testing.assert_close(worth[:, :, :3, :3].sum((1, 2, 3)), whole[:, 0, 0])


def test_several_targets_images_of_different_segments_and_small_batches():
    model, x = mlp(), rows(4)
    targets = torch.tensor([[0, 1], [1, 2], [2, 0], [1, 1]])
    home = build("lime", segments=torch.tensor([[0, 0, 1, 1, 1], [0, 1, 2, 3, 4]] * 2), batch_size=3)
    slopes = torch.stack([build(name).slopes(model, x, targets) for name in ("occlusion", "smooth-grad")])
    errors, constant = home.errors(model, x, slopes, targets)
    assert errors.shape == (2, 4, 2)
    assert constant.shape == (4, 2)
    for i in range(4):
        alone = build("lime", segments=home.segments[i])
        found, of_constant = alone.errors(model, x[i : i + 1], slopes[:, i : i + 1, 1], targets[i : i + 1, 1])
        torch.testing.assert_close(errors[:, i, 1], found[:, 0])
        torch.testing.assert_close(constant[i, 1], of_constant[0])
    choice = choose_explainer(model, x, home, targets=targets)
    assert set(choice.errors) == set(EIGHT)


def test_the_network_is_left_alone():
    model = mlp().train()
    before = copy.deepcopy(model.state_dict())
    choose_explainer(model, rows(), "smooth-grad")
    assert model.training
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_what_cannot_be_chosen_from():
    with pytest.raises(ConfigError, match="explainers is empty"):
        choose_explainer(mlp(), rows(), "lime", {})
    with pytest.raises(ConfigError, match="cam is a GradCAM, which is no linear function"):
        choose_explainer(mlp(), rows(), "lime", {"cam": GradCAM()})
    with pytest.raises(ConfigError, match="neighbourhood is a GradCAM"):
        choose_explainer(mlp(), rows(), "grad-cam")
    with pytest.raises(UnknownName, match="did you mean 'lime'"):
        choose_explainer(mlp(), rows(), "lme")
    with pytest.raises(ShapeError, match="empty batch"):
        choose_explainer(mlp(), rows(0), "lime")


def test_a_table_of_columns():
    table = attribution_table(torch.tensor([0.1, -0.5, 0.0, 0.3]), list("abcd"), torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert [line.name for line in table] == ["b", "d", "a", "c"]
    assert [line.value for line in table] == [2.0, 4.0, 1.0, 3.0]
    assert table[0].attribution == -0.5
    assert [line.name for line in attribution_table(torch.tensor([0.1, -0.5]), ["a", "b"], top=1)] == ["b"]
    with pytest.raises(ShapeError, match=r"attribution must be \[3\]"):
        attribution_table(torch.zeros(2), list("abc"))
    with pytest.raises(ShapeError, match=r"row must be \[2\]"):
        attribution_table(torch.zeros(2), list("ab"), torch.zeros(1, 2))
