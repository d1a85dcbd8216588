"""What every explainer of the class activation family can do: several targets or layers, in networks of any make."""

from __future__ import annotations

import contextlib
import copy
import functools
import gc
from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire import backbones, heads, registry
from repertoire.errors import ConfigError, ShapeError, UnknownName
from repertoire.explain import (
    AblationCAM,
    EigenCAM,
    GradCAM,
    GradCAMPlusPlus,
    GuidedGradCAM,
    LayerCAM,
    NormGrad,
    ScoreCAM,
    SmoothGradCAMPlusPlus,
    XGradCAM,
    shared_passes,
)
from repertoire.methods import Classifier, Normalize
from repertoire.ops import as_maps


def resnet() -> Classifier:
    torch.manual_seed(0)
    net = backbones.ResNet(8, in_channels=3, width=4)
    return Classifier(Normalize([0.5] * 3, [0.25] * 3), net, heads.Linear(net.out_features, 5)).eval()


def images(count: int = 3, size: int = 16) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


class Square(torch.autograd.Function):
    """Has no rule for a batch of gradients."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return 2 * x * grad * float(grad.abs().sum() >= 0)


class Squared(heads.Linear):
    def forward(self, x: Tensor, targets: Tensor | None = None) -> Tensor:
        return super().forward(Square.apply(x), targets)


@pytest.mark.parametrize("batches", [True, False])
@pytest.mark.parametrize("layer", [None, ["backbone.blocks.1", "stage3"]])
def test_several_targets_are_each_alone(batches, layer):
    model, x = resnet(), images()
    if not batches:
        model.head = Squared(model.backbone.out_features, 5)
    targets = torch.tensor([[0, 4], [1, 1], [2, 3]])
    explainer = GradCAM(layer)
    maps = explainer(model, x, targets)
    assert maps.shape == (3, 2, 16, 16)
    for k in range(2):
        torch.testing.assert_close(maps[:, k], explainer(model, x, targets[:, k]))
    assert explainer(model, images(0), torch.zeros(0, 2, dtype=torch.int64)).shape == (0, 2, 16, 16)


@pytest.mark.parametrize(
    "targets", [torch.zeros(3, 0, dtype=torch.int64), torch.zeros(3, 1, 1, dtype=torch.int64), "0"]
)
def test_targets_of_no_use(targets):
    with pytest.raises(ShapeError, match=r"targets must be int64 \[3\]"):
        GradCAM()(resnet(), images(), targets)


def test_stages_of_a_backbone():
    model, x = resnet(), images()
    for number, last in enumerate(model.backbone.stage_ends, 1):
        torch.testing.assert_close(GradCAM(f"stage{number}")(model, x), GradCAM(f"backbone.blocks.{last}")(model, x))
    with pytest.raises(UnknownName, match="stage3"):
        GradCAM("stage4")(model, x)


def test_layers_are_combined():
    model, x = resnet(), images()
    names = ["stage2", "stage3"]
    alone = torch.stack([GradCAM(name)(model, x, 1) for name in names])
    for combine, expected in (
        ("mean", alone.mean(0)), ("max", alone.amax(0)), ("product", alone.prod(0).sqrt()),
    ):  # fmt: skip
        maps = GradCAM(names, combine=combine, normalize=False)(model, x, 1)
        torch.testing.assert_close(maps, expected)
        again = registry.build("explainers", f"grad-cam:layer=(stage3,stage2),combine={combine},normalize=false")
        torch.testing.assert_close(again(model, x, 1), expected)


def test_layers_on_two_branches():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return (self.a(x) * self.b(x)).mean((2, 3))

    torch.manual_seed(0)
    model, x = Two(), images()
    for pair in (["a", "b"], ["b", "a"]):
        maps = GradCAM(pair, normalize=False)(model, x, 2)
        torch.testing.assert_close(maps, (GradCAM("a")(model, x, 2) + GradCAM("b")(model, x, 2)) / 2)


@pytest.mark.parametrize("layer", [[], ["a", "a"], ["a", 3], 3])
def test_layers_of_no_use(layer):
    with pytest.raises(ConfigError, match="layer must be a module or its name, or a list"):
        GradCAM(layer)
    with pytest.raises(ConfigError, match="combine must be"):
        GradCAM(combine="sum")


def test_what_a_map_is_shows_in_its_proportions():
    size = (32, 48)
    maps = torch.arange(2 * 5 * 4 * 6.0).reshape(2, 5, 4, 6)
    torch.testing.assert_close(as_maps(maps, size), maps)
    torch.testing.assert_close(as_maps(maps.movedim(1, 3), size), maps)
    tokens = maps.flatten(2).transpose(1, 2)
    for extra in (0, 1, 5):
        torch.testing.assert_close(as_maps(torch.cat([torch.ones(2, extra, 5), tokens], 1), size), maps)
    assert as_maps(torch.zeros(2, 4, 25, 64), (80, 80)).shape == (2, 4, 25, 64), "heads, tokens, features"
    assert as_maps(torch.zeros(2, 7), size).shape == (2, 7)


def test_a_transformer_of_any_make():
    """One that reads a class token: the other tokens have no part in the answer after the last mixing of tokens."""

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(8)
            self.mix = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            y = self.norm(x)
            return x + self.mix(y, y, y)[0]

    class Foreign(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch = nn.Conv2d(3, 8, 4, 4)
            self.cls = nn.Parameter(torch.randn(1, 1, 8))
            self.blocks = nn.Sequential(Attention(), Attention())
            self.norm = nn.LayerNorm(8)
            self.head = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.patch(x).flatten(2).transpose(1, 2)
            x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1)
            return self.head(self.norm(self.blocks(x))[:, 0])

    torch.manual_seed(0)
    model, x = Foreign().eval(), images(2, 32)
    maps = GradCAM()(model, x)
    assert maps.shape == (2, 32, 32)
    assert maps.any()
    torch.testing.assert_close(maps, GradCAM("blocks.1.norm")(model, x))


def test_a_compiled_model_is_explained_as_it_is():
    model, x = resnet(), images()
    expected = GradCAM("stage3")(model, x)
    compiled = torch.compile(copy.deepcopy(model), backend="eager")
    compiled(x)
    torch.testing.assert_close(GradCAM("stage3")(compiled, x), expected)
    inside = copy.deepcopy(model)
    inside.compile(backend="eager")
    inside(x)
    torch.testing.assert_close(GradCAM("stage3")(inside, x), expected)


def test_images_of_single_precision_for_weights_of_half():
    model, x = resnet(), images()
    maps = GradCAM()(copy.deepcopy(model).to(torch.bfloat16), x, 1)
    assert maps.dtype == torch.float32
    torch.testing.assert_close(maps, GradCAM()(model, x, 1), rtol=0, atol=0.15)


def test_images_of_mixed_sizes():
    with pytest.raises(ShapeError, match="images of mixed sizes"):
        GradCAM()(resnet(), [images(1, 16)[0], images(1, 20)[0]])


CAMS = {
    "grad-cam": GradCAM, "grad-cam++": GradCAMPlusPlus, "smooth-grad-cam++": SmoothGradCAMPlusPlus,
    "xgrad-cam": XGradCAM, "layer-cam": LayerCAM, "eigen-cam": EigenCAM, "score-cam": ScoreCAM,
    "ablation-cam": AblationCAM, "normgrad": NormGrad, "meta-normgrad": functools.partial(NormGrad, step=0.01),
    "guided-grad-cam": GuidedGradCAM,
}  # fmt: skip
every_cam = pytest.mark.parametrize("cam", CAMS.values(), ids=CAMS)


def left_behind(model: nn.Module) -> list[object]:
    return [
        part
        for module in model.modules()
        for part in (
            *module._forward_hooks,
            *module._forward_pre_hooks,
            *module._backward_hooks,
            vars(module).get("forward"),
        )
        if part is not None
    ] + [parameter for parameter in model.parameters() if parameter.grad is not None]


@every_cam
def test_every_method_takes_several_targets_and_layers(cam):
    model, x = resnet(), images()
    targets = torch.tensor([[0, 4], [1, 1], [2, 3]])
    layers = ["stage2", "stage3"]
    maps = cam(layers)(model, x, targets)
    assert maps.shape == (3, 2, 16, 16)
    for k in range(2):
        torch.testing.assert_close(maps[:, k], cam(layers)(model, x, targets[:, k]))


@every_cam
def test_every_method_survives_what_follows_in_place(cam):
    class Relu(nn.Module):
        def __init__(self, inplace: bool) -> None:
            super().__init__()
            self.inplace = inplace

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(x, inplace=self.inplace)

    def net(inplace: bool) -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3), Relu(inplace), nn.Conv2d(6, 6, 3), Relu(inplace), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
            nn.Linear(24, 4),
        )  # fmt: skip

    torch.testing.assert_close(cam("2")(net(True), images(), 1), cam("2")(net(False), images(), 1))


@every_cam
def test_every_method_survives_a_model_that_fails_behind_the_layer(cam):
    class Fails(nn.Module):
        passes = 0

        def forward(self, x: Tensor) -> Tensor:
            Fails.passes += 1
            if Fails.passes >= fails_at:
                raise RuntimeError("in the middle")
            return x

    model = nn.Sequential(OrderedDict(net=resnet(), after=Fails())).train()
    training = [module.training for module in model.modules()]
    for fails_at in (1, 2, 4):
        Fails.passes = 0
        with contextlib.suppress(RuntimeError):
            cam("net.backbone.blocks.2")(model, images(), 1)
            assert Fails.passes < fails_at, "the error is the caller's"
        assert not left_behind(model)
        assert [module.training for module in model.modules()] == training
        assert torch.is_grad_enabled()


@every_cam
def test_every_method_explains_half_precision_and_compiled_models(cam):
    model, x = resnet(), images()
    expected = cam("stage3")(model, x, 1)
    compiled = torch.compile(copy.deepcopy(model), backend="eager")
    compiled(x)
    with torch.inference_mode():
        torch.testing.assert_close(cam("stage3")(compiled, x, 1), expected)
    half = cam("stage3")(copy.deepcopy(model).to(torch.bfloat16), x, 1)
    assert half.dtype == torch.float32
    assert half.isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = cam("stage3")(model, x, 1)
    torch.testing.assert_close(mixed, expected, rtol=0, atol=0.25)


def test_thousands_of_calls_leave_nothing():
    """No tensor and no hook stays, whatever the method, over calls and over models."""
    x = images(2)

    def alive() -> int:
        gc.collect()
        return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())

    model, explainers = resnet(), [cam("stage3") for cam in CAMS.values()]
    for explainer in explainers:
        explainer(model, x)
    before = alive()
    for explainer in explainers:
        for _ in range(300 if isinstance(explainer, GradCAM) else 5):
            explainer(model, x)
    assert alive() == before
    assert not left_behind(model)
    for _ in range(12):
        other = resnet()
        for explainer in explainers[:6]:
            explainer(other, x)
        assert not left_behind(other)
    del other
    assert alive() == before


class Written(nn.Module):
    """One network, its activations written in several ways."""

    def __init__(self, way: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.way = way
        self.first, self.last = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)
        self.linear = nn.Linear(8, 4)
        self.acts = nn.ModuleList([nn.ReLU(), nn.ReLU(), nn.ReLU()])
        self.act = nn.ReLU(inplace=way == "in place")

    def forward(self, x: Tensor) -> Tensor:
        if self.way == "modules":
            one, two, three = self.acts
        elif self.way in ("one module", "in place"):
            one = two = three = self.act
        else:
            one = two = three = {"function": nn.functional.relu, "method": Tensor.relu, "torch": torch.relu_}[self.way]
        h = two(self.last(one(self.first(x))))
        return self.linear(three(h.mean((2, 3))))


@pytest.mark.parametrize("way", ["one module", "in place", "function", "method", "torch"])
@pytest.mark.parametrize(
    "name", ["grad-cam", "ablation-cam", "eigen-cam", "score-cam", "normgrad:step=0.01", "tokencut"]
)
def test_the_layer_found_does_not_hang_on_how_an_activation_is_written(way, name):
    x = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    explainer = registry.build("explainers", name)
    expected = explainer(Written("modules").eval(), x, 1)
    assert expected.any()
    torch.testing.assert_close(explainer(Written(way).eval(), x, 1), expected, rtol=1e-4, atol=1e-5)


def test_a_network_that_passes_an_image_twice_is_named_as_such():
    class Siam(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = Written("modules")

        def forward(self, x: Tensor) -> Tensor:
            return self.one(x) + self.one(x.flip(3))

    with pytest.raises(ConfigError, match="run more than once in a forward pass"):
        GradCAM()(Siam().eval(), torch.rand(2, 3, 12, 12))


class Counted(nn.Module):
    """Counts its passes."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh())
        self.scores = nn.Linear(4, 5)
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return self.scores(self.features(x).mean((2, 3)))


def passes(net: Counted, explainers: list, *batches: Tensor, targets: Tensor | int = 1) -> tuple[int, list[Tensor]]:
    """How many passes explainers take for batches, and their maps."""
    net.passes = 0
    maps = [explainer(net, batch, targets) for explainer in explainers for batch in batches]
    return net.passes, maps


def test_explainers_of_one_layer_share_a_pass_and_give_the_same_maps():
    torch.manual_seed(0)
    net = Counted()
    looking = [GradCAM("features"), LayerCAM("features"), EigenCAM("features")]
    alone, expected = passes(net, looking, images())
    with shared_passes():
        together, found = passes(net, looking, images())
        again, _ = passes(net, looking, images().clone())
    assert (alone, together, again) == (3, 1, 0)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert passes(net, looking, images())[0] == 3  # what was kept is gone


def test_a_pass_is_shared_only_where_it_is_the_same():
    torch.manual_seed(0)
    net, other = Counted(), Counted()
    looking = [GradCAM("features")]
    with shared_passes():
        assert passes(net, looking, images())[0] == 1
        assert passes(net, looking, images() + 1)[0] == 1  # other images
        assert passes(net, looking, images() + 1, targets=2)[0] == 1  # another class
        assert passes(net, looking, images() + 1, targets=torch.tensor([2, 2, 2]))[0] == 1
        assert passes(net, looking, images() + 1, targets=torch.tensor([2, 2, 2]))[0] == 0
        assert passes(other, looking, images() + 1, targets=torch.tensor([2, 2, 2]))[0] == 1  # another network
        assert passes(other, [GradCAM("features.0")], images() + 1, targets=torch.tensor([2, 2, 2]))[0] == 1


def test_a_pass_without_slopes_serves_nobody_who_needs_them():
    net = Counted()
    with shared_passes():
        assert passes(net, [EigenCAM("features"), GradCAM("features")], images())[0] == 2
        assert passes(net, [EigenCAM("features")], images())[0] == 0


def test_as_many_passes_are_kept_as_were_asked_for():
    net = Counted()
    looking, batches = [GradCAM("features"), LayerCAM("features")], (images(), images() + 1)
    for most, expected in ((1, 4), (2, 2), (0, 4)):
        with shared_passes(most):
            assert passes(net, looking, *batches)[0] == expected
    with shared_passes(2):
        assert passes(net, looking, *batches)[0] == 2
        with shared_passes(0):
            assert passes(net, looking, *batches)[0] == 4
        assert passes(net, looking, *batches)[0] == 0
