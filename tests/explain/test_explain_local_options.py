"""What local approximations share: components, signs, targets, bounded batches, and a model that is left alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from repertoire import registry
from repertoire.errors import ConfigError, ShapeError
from repertoire.explain import (
    CLIME,
    LIME,
    Gradient,
    GradientXInput,
    IntegratedGradients,
    KernelSHAP,
    LocalApproximation,
    Occlusion,
    SmoothGrad,
)

EIGHT = [LIME, CLIME, KernelSHAP, Occlusion, Gradient, GradientXInput, SmoothGrad, IntegratedGradients]
BY_GRADIENTS = [Gradient, GradientXInput, SmoothGrad, IntegratedGradients]


class Net(nn.Module):
    """Counts the rows that pass, and can be told to misbehave."""

    def __init__(self, mode: str = "") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mode, self.rows = mode, []
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.linear = nn.Linear(4 * 4, 3)

    def forward(self, x: Tensor) -> object:
        self.rows.append(len(x))
        if self.mode == "overwrites":
            x = x.mul_(2.0) / 2
        h = self.norm(self.conv(x)).tanh()
        if self.mode == "fails later" and len(self.rows) > 1:
            raise RuntimeError("in the middle")
        if self.mode == "cuts":
            h = h.detach()
        scores = self.linear(nn.functional.adaptive_avg_pool2d(h, 2).flatten(1))
        return {"logits": scores} if self.mode == "mapping" else scores


def images(count: int = 3, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 8, 7, generator=torch.Generator().manual_seed(seed))


def columns() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 3))


def rows(count: int = 4) -> Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(0))


def build(kind: type[LocalApproximation], **options: object) -> LocalApproximation:
    small = {"samples": 300} if kind in (LIME, CLIME, KernelSHAP) else {"samples": 5}
    return kind(**({} if kind in (Occlusion, Gradient, GradientXInput) else small), **options)


@pytest.mark.parametrize("kind", EIGHT)
def test_several_targets_are_each_alone(kind):
    targets = torch.tensor([[0, 2], [1, 1], [2, 0]])
    explainer = build(kind, normalize=False)
    found = explainer(Net(), images(), targets)
    assert found.shape == (3, 2, 8, 7)
    for k in range(2):
        torch.testing.assert_close(found[:, k], explainer(Net(), images(), targets[:, k]))
    assert explainer(Net(), images(0), torch.zeros(0, 2, dtype=torch.int64)).shape == (0, 2, 8, 7)
    net, x = columns(), rows(3)
    assert explainer(net, x, targets).shape == (3, 2, 6)
    torch.testing.assert_close(explainer(net, x), explainer(net, x, net(x).argmax(1)))


@pytest.mark.parametrize("kind", EIGHT)
@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_batches_are_bounded_and_change_nothing(kind, batch_size):
    model = Net()
    found = build(kind, normalize=False, batch_size=batch_size)(model, images())
    assert max(model.rows) <= batch_size
    torch.testing.assert_close(found, build(kind, normalize=False)(Net(), images()))


@pytest.mark.parametrize(
    ("explainer", "passes"),
    [
        (Gradient(), 3),
        (GradientXInput(), 3),
        (IntegratedGradients(5), 15),
        (SmoothGrad(5), 15),
        (CLIME(20, patch=4), 60),
        (LIME(20, patch=4), 60),
        (KernelSHAP(20, patch=4), 3 * (14 + 2)),
        (Occlusion(patch=4), 3 * (4 + 1)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, LocalApproximation) else str(value),
)
def test_no_more_passes_than_needed(explainer, passes):
    """Each asks for what its definition does."""
    model = Net()
    explainer(model, images(), torch.tensor([0, 1, 2]))
    assert sum(model.rows) == passes
    more = 0 if isinstance(explainer, KernelSHAP | Occlusion) else 3  # the input's own, to see what is predicted
    model.rows.clear()
    explainer(model, images())
    assert sum(model.rows) == passes + more


@pytest.mark.parametrize("kind", EIGHT)
def test_weights_take_no_part(kind):
    """No gradient of theirs is computed, and what they require is as it was, whatever happens."""
    model = Net()
    model.conv.bias.requires_grad = False
    before = [p.requires_grad for p in model.parameters()]
    asked: list[bool] = []
    model.linear.register_forward_pre_hook(lambda module, _: asked.append(module.weight.requires_grad))
    build(kind)(model, images())
    assert [p.requires_grad for p in model.parameters()] == before
    assert all(p.grad is None for p in model.parameters())
    if kind in BY_GRADIENTS:
        assert not asked[-1]  # or what only they need would be kept
    failing = Net("fails later").train()
    with pytest.raises(RuntimeError, match="in the middle"):
        build(kind, batch_size=1)(failing, images())
    assert all(p.requires_grad for p in failing.parameters())
    assert all(module.training for module in failing.modules())
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("kind", EIGHT)
@pytest.mark.parametrize("mode", ["overwrites", "mapping"])
def test_models_of_other_makes(kind, mode):
    x = images()
    torch.testing.assert_close(build(kind)(Net(mode), x, 1), build(kind)(Net(), images(), 1))
    torch.testing.assert_close(x, images(), rtol=0, atol=0)


@pytest.mark.parametrize("kind", BY_GRADIENTS)
def test_a_score_without_a_gradient(kind):
    with pytest.raises(ConfigError, match="do not depend on its inputs"):
        build(kind)(Net("cuts"), images())


@pytest.mark.parametrize("kind", EIGHT)
def test_under_inference_mode_with_targets_made_there(kind):
    expected = build(kind)(Net(), images(), torch.tensor([0, 1, 2]))
    model = Net().requires_grad_(False)
    with torch.inference_mode():
        found = build(kind)(model, images(), torch.tensor([0, 1, 2]))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", EIGHT)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_precision(kind, dtype):
    found = build(kind)(copy.deepcopy(Net()).to(dtype), images().to(dtype), 1)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    if dtype == torch.float64:
        torch.testing.assert_close(found.float(), build(kind, normalize=True)(Net(), images(), 1), rtol=0, atol=0.9)


@pytest.mark.parametrize("kind", EIGHT)
def test_signs(kind):
    raw = build(kind, normalize=False)(Net(), images(), 1)
    assert (raw < 0).any()
    assert (raw > 0).any()
    for sign, shown in (("positive", raw.clamp_min(0)), ("magnitude", raw.abs()), ("negative", (-raw).clamp_min(0))):
        found = build(kind, sign=sign)(Net(), images(), 1)
        torch.testing.assert_close(found, shown / shown.amax((1, 2), keepdim=True))
    raw = build(kind, normalize=False)(columns(), rows(), 1)
    found = build(kind)(columns(), rows(), 1)
    torch.testing.assert_close(found, raw / raw.abs().amax(1, keepdim=True))
    assert (found < 0).any()


def test_features_that_all_speak_against_a_class_keep_their_signs():
    net = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[-1.0, -2.0], [0.0, 0.0]]))
    torch.testing.assert_close(Gradient()(net, torch.ones(1, 2), 0), torch.tensor([[-0.5, -1.0]]))
    assert not Gradient()(net, torch.ones(1, 2), 1).any()


def test_channels():
    model, x = Net(), images()
    each = torch.stack([Gradient("sum", normalize=False)(model, x * 0 + x, 0)])
    picture = x.clone().requires_grad_()
    model.eval()
    (slopes,) = torch.autograd.grad(model(picture)[:, 0].sum(), picture)
    torch.testing.assert_close(each[0], slopes.sum(1))
    largest = Gradient("max", normalize=False)(model, x, 0)
    torch.testing.assert_close(largest.abs(), slopes.abs().amax(1))
    assert ((largest[:, None] == slopes).any(1)).all()


@pytest.mark.parametrize("kind", [LIME, CLIME, KernelSHAP, Occlusion])
def test_images_with_different_numbers_of_segments(kind):
    few = (torch.arange(8)[:, None] // 4).expand(8, 7)
    many = few * 2 + torch.arange(7) // 4
    segments = torch.stack([few, many, few])
    found = build(kind, segments=segments, normalize=False)(Net(), images(), torch.tensor([0, 1, 2]))
    for i in range(3):
        alone = build(kind, segments=segments[i], normalize=False)(Net(), images()[i : i + 1], torch.tensor([i]))
        torch.testing.assert_close(found[i : i + 1], alone)
    by_function = build(kind, segments=lambda x: segments[: len(x)], normalize=False)(Net(), images(), [0, 1, 2][1])
    torch.testing.assert_close(by_function[1:2], found[1:2])
    with pytest.raises(ShapeError, match=r"targets must be int64 \[3\]"):
        build(kind, segments=segments)(Net(), images(), torch.tensor([0, 1]))


def test_columns_that_belong_together():
    net, x = columns(), rows()
    found = Occlusion(segments=torch.tensor([0, 0, 0, 1, 2, 2]), normalize=False)(net, x, 0)
    hidden = x.clone()
    hidden[:, :3] = 0
    torch.testing.assert_close(found[:, :3], (net(x) - net(hidden))[:, :1].expand(-1, 3).detach())


def test_gradients_on_components_are_sums():
    model, x = Net(), images()
    raw = GradientXInput(normalize=False)(model, x, 0)
    options = {"neighbourhood": "path", "loss": "gradient", "start": 1.0, "patch": 4, "normalize": False}
    found = LocalApproximation(**options)(model, x, 0)
    torch.testing.assert_close(found[:, 0, 0], raw[:, :4, :4].sum((1, 2)))
    torch.testing.assert_close(found[:, 7, 6], raw[:, 4:, 4:].sum((1, 2)))


@pytest.mark.parametrize("neighbourhood", ["masks", "shapley", "one-out"])
def test_gradients_on_masks(neighbourhood):
    """A setting without a name: of a linear score it is what all of them are."""
    net, x = nn.Linear(6, 3), rows()
    found = LocalApproximation(neighbourhood, "gradient", normalize=False)(net, x, 2)
    torch.testing.assert_close(found, (net.weight[2] * x).detach())


@pytest.mark.parametrize("shape", [(3,), (3, 1, 1), (1, 3, 8, 7), (3, 3, 8, 7)])
def test_baselines(shape):
    values = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    full = (values[:, None, None] if len(shape) == 1 else values).expand(3, 3, 8, 7)
    model, x = Net().eval(), images()
    found = IntegratedGradients(64, baseline=values, normalize=False)(model, x, 0)
    torch.testing.assert_close(found.sum((1, 2)), (model(x) - model(full.clone()))[:, 0].detach(), rtol=1e-3, atol=1e-5)
    means = KernelSHAP(100, baseline="mean", normalize=False, patch=4)(model, x, 0)
    expected = (model(x) - model(x.mean((2, 3), keepdim=True).expand_as(x).clone()))[:, 0].detach()
    total = means[:, 0, 0] + means[:, 0, 6] + means[:, 7, 0] + means[:, 7, 6]
    torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-6)


def test_corners():
    net = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 2))
    x = torch.tensor([[0.7], [0.0]])
    for kind in EIGHT:
        assert build(kind, normalize=False)(net, x, 1).isfinite().all()
    rise = (net(x) - net(torch.zeros_like(x)))[:, 1:].detach()
    torch.testing.assert_close(KernelSHAP(normalize=False)(net, x, 1), rise)  # of one component
    flat = torch.full((1, 3, 8, 7), 0.5)  # no range, so no noise
    for kind in (CLIME, SmoothGrad):
        assert build(kind, normalize=False)(Net(), flat, 0).isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"neighbourhood": "ball"}, "neighbourhood must be gaussian, path, masks, shapley or one-out, found 'ball'"),
        ({"loss": "absolute"}, "loss must be value or gradient"),
        ({"sign": "both"}, "sign must be positive, magnitude or negative"),
        ({"samples": 0}, "samples must be 1 or more, found 0"),
        ({"sigma": -1.0}, "sigma must be 0 or more"),
        ({"sigma": float("nan")}, "sigma must be 0 or more, found nan"),
        ({"batch_size": 0}, "batch_size must be 1 or more"),
        ({"start": 1.5}, r"start must lie in \[0, 1\]"),
        ({"width": 0.0}, "width must be positive"),
        ({"loss": "value", "sigma": 0.0}, "say nothing of single components"),
        ({"loss": "value", "neighbourhood": "path"}, "values on the path say nothing"),
        ({"patch": 2, "segments": torch.zeros(8, 7).long()}, "give one of them"),
        ({"segments": "slic"}, "segments must be a tensor or a function, found a str"),
        ({"baseline": "black"}, "baseline must be a number, a tensor or 'mean', found 'black'"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(ConfigError, match=message):
        LocalApproximation(**options)


@pytest.mark.parametrize(
    ("explainer", "error", "message"),
    [
        (Occlusion(segments=torch.zeros(8, 8).long()), ShapeError, r"segments must be int64 \[8, 7\] or \[3, 8, 7\]"),
        (Occlusion(segments=torch.zeros(8, 7)), ShapeError, "found a tensor of torch.float32"),
        (Occlusion(segments=-torch.ones(8, 7).long()), ShapeError, "numbered from 0, found -1"),
        (Occlusion(baseline=torch.zeros(4)), ShapeError, r"baseline \[4\] does not broadcast"),
        (LIME(samples=10), ConfigError, "10 samples cannot tell 56 components apart"),
        (KernelSHAP(samples=10), ConfigError, "10 samples cannot tell 56 components apart"),
    ],
)
def test_inputs_that_do_not_fit(explainer, error, message):
    with pytest.raises(error, match=message):
        explainer(Net(), images())


def test_more_inputs_that_do_not_fit():
    with pytest.raises(ConfigError, match="mean"):
        Occlusion("mean")(columns(), rows())
    with pytest.raises(ShapeError, match=r"images \[N, C, H, W\] or features \[N, D\]"):
        Gradient()(columns(), torch.zeros(3, 4, 5))
    with pytest.raises(ShapeError, match="from 0 to 2, found 3"):
        Gradient()(columns(), rows(), 3)


def test_are_built_from_specs():
    one = registry.build("explainers", "kernel-shap:samples=100,baseline=0.5,patch=4,sign=magnitude,normalize=false")
    torch.testing.assert_close(one(Net(), images()), KernelSHAP(100, 0.5, 4, normalize=False)(Net(), images()))
    other = registry.build("explainers", "lfa:neighbourhood=masks,loss=gradient,baseline=mean")
    assert other(Net(), images()).shape == (3, 8, 7)
    with pytest.raises(ConfigError, match="segments"):
        registry.build("explainers", "occlusion:segments=slic")
