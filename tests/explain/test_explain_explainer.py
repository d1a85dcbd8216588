"""What all explainers share: inputs of their own, scores that are told their rows, refusals, and whole docstrings."""

from __future__ import annotations

import copy
import inspect

import pytest
import torch
from torch import Tensor, nn

from repertoire import backbones, explain, heads, registry
from repertoire.errors import ConfigError, DataError
from repertoire.explain import (
    LRP,
    AblationCAM,
    GradCAM,
    Gradient,
    GuidedBackprop,
    IntegratedGradients,
    KernelSHAP,
    LayerCAM,
    NormGrad,
    Occlusion,
    ScoreCAM,
    SmoothGradCAMPlusPlus,
    class_sensitivity,
    deletion_curve,
    insertion_curve,
    judge,
    randomization_check,
)
from repertoire.methods import Classifier, Normalize

NAMES = registry.names("explainers")


class Body(nn.Module):
    """A convolutional network or a transformer, which normalises what it is given, in place or not."""

    def __init__(self, kind: str, in_place: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.in_place = in_place
        net = backbones.ViT(image_size=16, patch=4, dim=12, depth=2, heads=2) if kind == "vit" else backbones.ConvNet()
        head = heads.SupportTrivial if kind == "parts" else heads.Linear
        model = Classifier(Normalize([0.5] * 3, [0.25] * 3), net, head(net.out_features, 4))
        self.backbone, self.head, self.inner = model.backbone, model.head, [model]

    def forward(self, x: Tensor) -> Tensor:
        if self.in_place:
            x -= 0.45
            x /= 0.22
        else:
            x = (x - 0.45) / 0.22
        return self.inner[0](x)


def images(count: int = 3) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def twins(name: str) -> tuple[Body, Body]:
    kinds = registry.get("explainers", name).factory.kinds
    kind = "convnet" if "maps" in kinds else "vit" if "tokens" in kinds else "parts"
    return Body(kind, False).eval(), Body(kind, True).eval()


@pytest.mark.parametrize("name", [*NAMES, "normgrad:step=0.01"])
def test_a_network_that_overwrites_its_input_has_the_same_maps_and_the_images_stay(name):
    keeps, overwrites = twins(name.partition(":")[0])
    x = images()
    if name == "prototype-parts":  # looks for a head
        overwrites.inner[0].head = overwrites.head
    explainer = registry.build("explainers", name)
    before, expected = x.clone(), explainer(keeps, x, torch.tensor([0, 3, 1]))
    found = explainer(overwrites, x, torch.tensor([0, 3, 1]))
    torch.testing.assert_close(x, before, rtol=0, atol=0)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(x.flip(0), before.flip(0), rtol=0, atol=0)


@pytest.mark.parametrize(
    "measure",
    [
        lambda model, x: insertion_curve(model, x, x.mean(1), steps=4),
        lambda model, x: deletion_curve(model, x, x.mean(1), steps=4),
        lambda model, x: class_sensitivity(GradCAM(), model, x),
        lambda model, x: randomization_check(GradCAM(), model, x, mode="all").rank_correlation,
    ],
)
def test_what_judges_maps_leaves_the_images_too(measure):
    keeps, overwrites = twins("grad-cam")
    x = images()
    before, expected = x.clone(), measure(keeps, x)
    torch.testing.assert_close(measure(overwrites, x), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(x, before, rtol=0, atol=0)


class Dense(nn.Module):
    """Scores of two classes at each place."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.relu = nn.ReLU()
        self.last = nn.Conv2d(6, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.relu(self.conv(x)))


BY_IMAGE = {
    "grad-cam": lambda output: GradCAM("relu", output=output),
    "layer-cam": lambda output: LayerCAM("relu", output=output),
    "smooth": lambda output: SmoothGradCAMPlusPlus("conv", output=output),
    "normgrad": lambda output: NormGrad("conv", step=0.1, output=output),
    "score-cam": lambda output: ScoreCAM("relu", rows=5, output=output),
    "ablation-cam": lambda output: AblationCAM("relu", rows=5, output=output),
    "occlusion": lambda output: Occlusion(patch=4, batch_size=5, output=output),
    "integrated-gradients": lambda output: IntegratedGradients(8, batch_size=5, output=output),
    "gradient": lambda output: Gradient(batch_size=2, output=output),
    "kernel-shap": lambda output: KernelSHAP(20, patch=8, batch_size=7, output=output),
}


@pytest.mark.parametrize("name", list(BY_IMAGE))
def test_each_image_may_have_a_score_of_its_own_kind(name):
    """The score inside a mask of each image, in one batch and one by one."""
    model, x = Dense().eval(), images(3)
    x[1] = 0.5  # flat maps, which Score-CAM masks to black
    masks = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(1)) < 0.3

    def inside(result: Tensor, rows: Tensor) -> Tensor:
        return (result * masks[rows][:, None]).sum((2, 3))

    together = BY_IMAGE[name](inside)(model, x, 1)
    for i in range(3):
        alone = BY_IMAGE[name](lambda result, mask=masks[i]: (result * mask).sum((2, 3)))(model, x[i : i + 1], 1)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [n for n in NAMES if "maps" in registry.get("explainers", n).factory.kinds])
@pytest.mark.parametrize("where", ["weights", "images"])
def test_scores_that_are_not_numbers_are_refused(name, where):
    model, x = copy.deepcopy(twins(name)[0]), images()
    if where == "weights":
        with torch.no_grad():
            next(model.head.parameters()).fill_(torch.nan)
    else:
        x[1, 0, 3, 3] = torch.nan
    with pytest.raises(DataError, match=r"number 1\) is not finite" if where == "images" else r"is not finite"):
        registry.build("explainers", name)(model, x, 0)


def test_curves_refuse_maps_that_are_not_numbers():
    model, x = twins("grad-cam")[0], images()
    maps = x.mean(1)
    maps[1, 2, 2] = torch.nan
    with pytest.raises(DataError, match=r"number 1\) is not finite"):
        insertion_curve(model, x, maps)


@pytest.mark.parametrize("name", ["grad-cam", "lime", "integrated-gradients", "guided-backprop", "lrp"])
@pytest.mark.parametrize(("weights", "given"), [(torch.float64, torch.float32), (torch.float32, torch.float64)])
def test_images_are_brought_to_the_precision_of_the_weights(name, weights, given):
    model = twins(name)[0].to(weights)
    explainer = registry.build("explainers", name)
    expected = explainer(model, images().to(weights), 1)
    torch.testing.assert_close(explainer(model, images().to(given), 1), expected)
    assert expected.dtype == weights


@pytest.mark.parametrize("name", ["kernel-shap", "lime", "c-lime", "lfa:neighbourhood=shapley,loss=value"])
def test_long_images_have_enough_samples_by_default(name):
    net = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.LazyLinear(2))
    x = torch.rand(1, 1, 8, 600)
    net(x)
    assert registry.build("explainers", name)(net, x, 0).shape == (1, 8, 600)


@pytest.mark.parametrize("name", ["kernel-shap", "smooth-grad", "lime", "c-lime", "smooth-grad-cam-plus-plus"])
def test_a_seed_that_no_generator_takes_is_refused(name):
    with pytest.raises(ConfigError, match="seed must be a number of 64 bits"):
        registry.build("explainers", f"{name}:seed=99999999999999999999")


def test_too_few_samples_are_named_as_they_were_given():
    net = nn.Linear(6, 2)
    with pytest.raises(ConfigError, match=r"^3 samples cannot tell 6 components apart"):
        KernelSHAP(samples=3)(net, torch.rand(2, 6), 0)


@pytest.mark.parametrize("name", NAMES)
def test_the_docstring_describes_each_option_once(name):
    factory = registry.get("explainers", name).factory
    text = inspect.getdoc(factory)
    args = text.partition("Args:\n")[2].partition("\n\n")[0]
    described = [
        line.strip().partition(":")[0] for line in args.splitlines() if line.startswith("    ") and line[4] != " "
    ]
    assert described == list(inspect.signature(factory).parameters)
    for heading in ("Args:", "Raises:", "Example:"):
        assert text.count(f"\n{heading}\n") == 1
    assert max(map(len, text.splitlines())) <= 120


def test_presets_say_what_may_be_set():
    assert list(inspect.signature(Gradient).parameters) == ["channels", "sign", "batch_size", "normalize", "output"]
    assert list(inspect.signature(Occlusion).parameters)[:3] == ["baseline", "patch", "segments"]
    with pytest.raises(TypeError, match="samples"):
        Gradient(samples=3)
    assert Gradient("sum").channels == "sum"
    assert {name for name in dir(explain) if not name.startswith("_")} >= {"Gradient", "LIME", "CLIME"}


def test_judging_scores_of_each_image_takes_one_batch():
    model, x = twins("grad-cam")[0], images()
    by_row = GradCAM(output=lambda result, rows: result)
    with pytest.raises(ConfigError, match="batch_size"):
        judge(model, x, {"cam": by_row}, steps=2, batch_size=2)
    assert judge(model, x, {"cam": by_row}, steps=2, batch_size=3).rows[0].name == "cam"


def test_features_are_explained_with_signs():
    """Of a network without biases relevance is the gradient times the input, and sums to the score; guided
    back-propagation is the product of the slopes, negative ones left out at the ReLU."""
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(5, 7, bias=False), nn.ReLU(), nn.Linear(7, 3, bias=False)), torch.randn(4, 5)
    relevance = LRP(epsilon=0.0, normalize=False)(net, x, 1)
    torch.testing.assert_close(relevance.sum(1), net(x)[:, 1], rtol=1e-4, atol=1e-5)
    assert (relevance < 0).any()
    first, last = net[0].weight, net[2].weight[1]
    expected = ((x @ first.T > 0) * last.clamp_min(0)) @ first
    torch.testing.assert_close(GuidedBackprop(normalize=False)(net, x, 1), expected)
    for explainer in (LRP(), GuidedBackprop()):
        largest = explainer(net, x, torch.tensor([[0, 1]] * 4)).abs().amax(2)
        torch.testing.assert_close(largest[largest > 0], torch.ones_like(largest[largest > 0]))
        assert (largest > 0).sum() > 4
