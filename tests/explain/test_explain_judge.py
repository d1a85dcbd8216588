from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from repertoire.errors import ConfigError, ShapeError, UnknownName
from repertoire.explain import (
    Explainer,
    GradCAM,
    Judged,
    area_under_curve,
    class_sensitivity,
    deletion_curve,
    energy_inside,
    insertion_curve,
    judge,
)  # fmt: skip
from repertoire.explain.trust._judgement import rank


class Quarter(nn.Module):
    """Which quarter of the image is brightest: what the answer depends on is known exactly."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Linear(4, 4, bias=False)
        with torch.no_grad():
            self.gain.weight.copy_(8 * torch.eye(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain(nn.functional.adaptive_avg_pool2d(x.mean(1, keepdim=True), 2).flatten(1))


class Truth(Explainer):
    """Where that is; or where it is not."""

    def __init__(self, wrong: bool = False) -> None:
        super().__init__()
        self.wrong = wrong

    def _explain(self, model: nn.Module, inputs: Tensor, targets: Tensor | int | None) -> Tensor:
        columns = model(inputs).argmax(1)[None] if targets is None else targets[None]
        places = torch.eye(4)[columns].view(*columns.shape, 2, 2)
        weights = model.gain.weight[columns].relu().amax(-1)[..., None, None]
        maps = (weights * places).repeat_interleave(inputs.shape[2] // 2, 2).repeat_interleave(inputs.shape[3] // 2, 3)
        return weights[..., :1, :1] - maps if self.wrong else maps


class Everywhere(Explainer):
    class_dependent = False

    def _explain(self, model: nn.Module, inputs: Tensor, targets: Tensor | int | None) -> Tensor:
        return inputs.mean(1)[None]


class Unfit(Explainer):
    def _explain(self, model: nn.Module, inputs: Tensor, targets: Tensor | int | None) -> Tensor:
        raise ConfigError("it takes another kind of network")


def images(count: int = 24) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    pixels = 0.5 * torch.rand(count, 1, 8, 8, generator=generator)
    masks = torch.zeros(count, 8, 8, dtype=torch.bool)
    for i in range(count):
        y, x = 4 * (i % 2), 4 * (i // 2 % 2)
        pixels[i, :, y : y + 4, x : x + 4] += 0.5
        masks[i, y : y + 4, x : x + 4] = True
    return pixels, masks


def test_the_truth_wins_and_its_opposite_is_called_out():
    pixels, masks = images()
    found = judge(Quarter(), pixels, {"wrong": Truth(wrong=True), "truth": Truth(), "image": Everywhere()}, masks=masks)
    assert found.rows[0].name == "truth"
    assert found.best[0] == "truth"
    assert "wrong" not in found.best
    assert found.rows[-1].name == "wrong"
    assert "random map" not in found.best
    assert found.rows[0].mean("energy") == found.rows[0].mean("pointing") == 1
    assert found.rows[-1].mean("energy") == 0
    blind = next(row for row in found.rows if row.name == "image")
    assert not blind.class_dependent
    assert blind.mean("randomization") == pytest.approx(1)
    assert any(w.startswith("image gives the same map whatever the class") for w in found.warnings())
    assert any("image" in w and "the same map when the weights are random" in w for w in found.warnings())
    assert any(w.startswith("wrong is not measurably better than a random map") for w in found.warnings())
    assert found.sentence().startswith("truth ")
    json.dumps(found.as_dict(), allow_nan=False)


def test_values_are_those_of_the_single_measures():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
    pixels, masks = images(7)
    explainer = GradCAM()
    (row,) = judge(net, pixels, {"cam": explainer}, masks=masks, steps=5, batch_size=3).rows
    maps = explainer(net, pixels)
    insertion = area_under_curve(insertion_curve(net, pixels, maps, steps=5))
    deletion = area_under_curve(deletion_curve(net, pixels, maps, steps=5))
    expected = {
        "insertion": insertion, "deletion": deletion, "faithfulness": insertion - deletion,
        "sensitivity": class_sensitivity(explainer, net, pixels), "energy": energy_inside(maps, masks),
    }  # fmt: skip
    for what, values in expected.items():
        np.testing.assert_allclose(row.values[what], values.numpy(), atol=1e-5, err_msg=what)
        low, high = row.intervals[what]
        assert low <= row.mean(what) <= high
    assert row.seconds > 0


def test_curves_are_those_of_the_scorer_and_maps_those_of_the_model():
    torch.manual_seed(0)
    net, other = (
        nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
        for _ in range(2)
    )
    pixels, _ = images(7)
    explainer = GradCAM()
    (row,) = judge(net, pixels, {"cam": explainer}, steps=5, batch_size=3, scorer=other).rows
    maps, classes = explainer(net, pixels), net(pixels).argmax(1)
    for what, curve in (("insertion", insertion_curve), ("deletion", deletion_curve)):
        expected = area_under_curve(curve(other, pixels, maps, classes, steps=5))
        np.testing.assert_allclose(row.values[what], expected.numpy(), atol=1e-5, err_msg=what)
    np.testing.assert_allclose(row.values["sensitivity"], class_sensitivity(explainer, net, pixels), atol=1e-5)


def test_leaves_the_model_alone_and_repeats():
    net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    state = torch.random.get_rng_state()
    pixels, _ = images(4)
    one, two = (judge(net, pixels, names, steps=3) for names in (["grad-cam"], "grad-cam"))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert net.training
    torch.testing.assert_close(dict(net.state_dict()), before, rtol=0, atol=0)
    for what, values in one.rows[0].values.items():
        np.testing.assert_array_equal(values, two.rows[0].values[what])


def test_what_does_not_fit_is_named_and_the_others_are_judged():
    pixels, _ = images(4)
    found = judge(Quarter(), pixels, {"unfit": Unfit(), "truth": Truth()}, steps=2)
    assert found.failed == {"unfit": "it takes another kind of network"}
    assert [row.name for row in found.rows] == ["truth"]
    with pytest.raises(ConfigError, match="no explainer fits the model: unfit: it takes another kind"):
        judge(Quarter(), pixels, {"unfit": Unfit()})


def test_a_target_that_is_the_least_likely_class_is_compared_with_another():
    pixels, _ = images(8)
    model = Quarter()
    least = model(pixels).argmin(1)
    (row,) = judge(model, pixels, {"truth": Truth()}, targets=least, steps=2).rows
    assert row.class_dependent
    assert row.mean("sensitivity") < 0


def judged(name: str, values: np.ndarray) -> Judged:
    rest = dict.fromkeys(("insertion", "deletion", "sensitivity", "randomization"), np.zeros(len(values)))
    return Judged(name, {"faithfulness": values, **rest}, True, 0.0)


def test_equal_explainers_cannot_be_told_apart():
    noise = np.random.default_rng(0).normal(size=50)
    found = rank([judged("a", noise + 2), judged("b", noise + 2), judged("c", noise)], judged("random map", -noise), {})
    assert set(found.best) == {"a", "b"}
    assert found.margins["c"] == pytest.approx((2, 2, 2))
    assert "cannot be told apart from b" in found.sentence()


def test_nothing_beats_chance():
    generator = np.random.default_rng(1)
    rows = [judged(name, generator.normal(size=30)) for name in "abc"]
    found = rank(rows, judged("random map", generator.normal(size=30)), {})
    assert "random map" in found.best
    assert found.sentence().startswith("No explainer is measurably better than a random map")
    single = rank(rows[:1], judged("random map", rows[0].values["faithfulness"] + 0.0), {})
    assert single.sentence().startswith("a is not measurably better than a random map")


@pytest.mark.parametrize("images", [2, 4, 8, 40])
@pytest.mark.parametrize("draw", ["normal", "standard_exponential"])
def test_intervals_hold_for_all_pairs_at_once(images, draw):
    """Of samples from equal explainers at most one in twenty shows a winner that is none, of however few images. Of
    200, a share of exactly that would show more than 21 once in 2,000 times."""
    wrong = 0
    for seed in range(200):
        generator = np.random.default_rng(seed)
        values = getattr(generator, draw)(size=(images, 6)) / 10 + generator.normal(size=(images, 1)) / 10
        rows = [judged(f"e{i}", values[:, i]) for i in range(5)]
        wrong += len(rank(rows, judged("random map", values[:, 5]), {}).best) < 6
    assert wrong <= 21


def test_a_margin_is_students_interval_at_the_level_of_all_pairs():
    """By hand: differences 0.1, 0.2, 0.3 and 0.6 have a mean of 0.3 and a standard error of 0.10801; the quantile of
    Student's t with three degrees of freedom at 1 - 0.05 / 6 is 4.8567."""
    gains = np.array([0.1, 0.2, 0.3, 0.6])
    found = rank([judged("a", gains), judged("b", 0 * gains)], judged("random map", 0 * gains), {})
    assert found.margins["b"] == pytest.approx((0.3, 0.3 - 4.8567 * 0.10801, 0.3 + 4.8567 * 0.10801), abs=1e-4)
    assert set(found.best) == {"a", "b", "random map"}


def test_an_interval_of_a_share_stays_a_share():
    values = np.array([1.0, 1.0, 0.9, 1.0])
    row = Judged("a", {"faithfulness": values, "energy": values, "pointing": values}, True, 0.0)
    low, high = rank([row], row, {}).rows[0].intervals["energy"]
    assert 0 < low < 0.975 < high == 1


def test_bad_input():
    pixels, masks = images(4)
    with pytest.raises(ShapeError, match="N at least 2"):
        judge(Quarter(), pixels[:1], {"truth": Truth()})
    with pytest.raises(ConfigError, match="no explainer to judge"):
        judge(Quarter(), pixels, {})
    with pytest.raises(UnknownName, match="grad-cam"):
        judge(Quarter(), pixels, ["gradcam"])
    with pytest.raises(ShapeError, match="masks must be"):
        judge(Quarter(), pixels, {"truth": Truth()}, masks=masks.float())
    with pytest.raises(ShapeError, match="classes from 0 to 3"):
        judge(Quarter(), pixels, {"truth": Truth()}, targets=torch.full((4,), 4))
