"""Grad-CAM against its definition, against CAM, and in the situations that users bring."""

from __future__ import annotations

import copy
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire import backbones, heads, registry
from repertoire.errors import ConfigError, ShapeError, UnknownName
from repertoire.explain import GradCAM
from repertoire.methods import Classifier, Normalize


def cnn(width: int = 6, classes: int = 4, seed: int = 0) -> nn.Sequential:
    """A network whose last map is followed by more than a linear classifier."""
    torch.manual_seed(seed)
    return nn.Sequential(
        OrderedDict(
            first=nn.Conv2d(3, width, 3, padding=1),
            norm=nn.BatchNorm2d(width),
            relu=nn.ReLU(inplace=True),
            last=nn.Conv2d(width, width, 3, stride=2),
            relu2=nn.ReLU(inplace=True),
            pool=nn.AdaptiveAvgPool2d(2),
            flat=nn.Flatten(),
            drop=nn.Dropout(0.5),
            hidden=nn.Linear(4 * width, 8),
            tanh=nn.Tanh(),
            linear=nn.Linear(8, classes),
        )
    )


def cam_net(classes: int = 5) -> nn.Sequential:
    """Convolutions, a global average and a linear classifier: the networks that have a CAM."""
    torch.manual_seed(0)
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(3, 8, 3), relu=nn.ReLU(), pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(),
            linear=nn.Linear(8, classes),
        )
    )  # fmt: skip


def images(
    count: int = 3, size: tuple[int, int] = (11, 9), seed: int = 0, dtype: torch.dtype = torch.float32
) -> Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def reference(model: nn.Sequential, cut: int, image: Tensor, target: int) -> Tensor:
    """The paper's formula for one image, a number at a time."""
    with torch.no_grad():
        maps = model[:cut](image[None])
    maps = maps.detach().requires_grad_()
    model[cut:](maps.clone())[0, target].backward()
    _, channels, h, w = maps.shape
    heat = torch.zeros(h, w, dtype=torch.float64)
    for k in range(channels):
        alpha = sum(float(maps.grad[0, k, i, j]) for i in range(h) for j in range(w)) / (h * w)
        heat += alpha * maps[0, k].detach()
    return heat.clamp_min(0)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(5, 12), st.integers(5, 12), st.integers(0, 99))
def test_equals_the_definition(count, height, width, seed):
    model = cnn(seed=seed).double().eval()
    x = images(count, (height, width), seed, torch.float64)
    targets = torch.arange(count) % 4
    raw = GradCAM("last", normalize=False)(model, x, targets)
    scaled = GradCAM("last")(model, x, targets)
    for i in range(count):
        small = reference(model, 4, x[i], int(targets[i]))
        expected = F.interpolate(small[None, None], (height, width), mode="bilinear", align_corners=False)[0, 0]
        torch.testing.assert_close(raw[i], expected)
        largest = expected.max()
        torch.testing.assert_close(scaled[i], expected / largest if largest > 0 else expected)


def test_is_cam_where_there_is_a_cam():
    model, x = cam_net(), images()
    for target in range(5):
        with torch.no_grad():
            maps = model[:2](x)
            cam = torch.einsum("k,nkij->nij", model.linear.weight[target], maps)
        expected = F.interpolate(cam.relu()[:, None] / maps[0, 0].numel(), x.shape[2:], mode="bilinear")[:, 0]
        torch.testing.assert_close(GradCAM(normalize=False)(model, x, target), expected)


def test_finds_the_object_of_each_class():
    """A network that knows red from green, and an image with a red square at the left and a green one at the right."""
    model = cam_net(classes=2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.conv.weight[0, 0, 1, 1] = model.conv.weight[1, 1, 1, 1] = 1
        model.linear.weight[0, 0] = model.linear.weight[1, 1] = 1
    x = torch.zeros(1, 3, 16, 16)
    x[0, 0, 4:8, 2:6] = 1
    x[0, 1, 4:8, 10:14] = 1
    red, green = GradCAM()(model, x.expand(2, -1, -1, -1), torch.tensor([0, 1]))
    assert red[:, :8].sum() > 0.95 * red.sum()
    assert green[:, 8:].sum() > 0.95 * green.sum()


def test_agrees_with_pytorch_grad_cam(peers):
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model, x = cnn().eval(), images(4, (24, 20))
    model.relu2.inplace = False  # the peer takes the layer's output after it was overwritten
    for target in range(4):
        ours = GradCAM(model.last)(model, x, target)
        with peers.GradCAM(model, [model.last]) as peer:
            theirs = torch.from_numpy(peer(x.clone(), [ClassifierOutputTarget(target)] * 4))
        low = ours.amin((1, 2), keepdim=True)  # the peer shifts each map to start at zero, before it enlarges it
        torch.testing.assert_close(
            (ours - low) / (ours.amax((1, 2), keepdim=True) - low + 1e-7), theirs, rtol=0, atol=1e-5
        )


def test_targets():
    model, x = cnn().eval(), images()
    predicted = model(x).argmax(1)
    torch.testing.assert_close(GradCAM()(model, x), GradCAM()(model, x, predicted))
    torch.testing.assert_close(GradCAM()(model, x, 2), GradCAM()(model, x, torch.full((3,), 2, dtype=torch.int32)))
    assert not torch.equal(GradCAM()(model, x, 0), GradCAM()(model, x, 1))


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (4, "from 0 to 3, found 4"),
        (torch.tensor([0, -1, 2]), "from 0 to 3, found -1"),
        (torch.tensor([0, 1]), r"int64 \[3\]"),
        (torch.zeros(3), "float32"),
    ],
)
def test_targets_that_do_not_fit(targets, message):
    with pytest.raises(ShapeError, match=message):
        GradCAM()(cnn(), images(), targets)


@pytest.mark.parametrize("x", [torch.zeros(3, 8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)])
def test_inputs_that_do_not_fit(x):
    with pytest.raises(ShapeError, match="inputs must be floating point images"):
        GradCAM()(cnn(), x)


@pytest.mark.parametrize("layer", ["first", "norm", "relu", "last", "relu2", "pool"])
def test_a_module_or_its_name(layer):
    model, x = cnn().eval(), images()
    maps = GradCAM(layer)(model, x)
    assert maps.shape == (3, 11, 9)
    torch.testing.assert_close(GradCAM(getattr(model, layer))(model, x), maps, rtol=0, atol=0)


def test_the_layer_is_found():
    model, x = cnn().eval(), images()
    torch.testing.assert_close(GradCAM()(model, x), GradCAM("pool")(model, x))  # 2x2 is a map
    torch.testing.assert_close(GradCAM()(cam_net(), x), GradCAM("relu")(cam_net(), x))  # 1x1 is none


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_the_layer_of_a_backbone_is_found(pooling):
    torch.manual_seed(0)
    net = backbones.ViT(image_size=16, patch=4, dim=12, depth=3, heads=2, pooling=pooling)
    model = Classifier(Normalize([0.5] * 3, [0.25] * 3), net, heads.Linear(12, 4))
    x = images(2, (16, 16))
    block = 3 if pooling == "mean" else 2  # the last tokens but the class token take no part in the answer
    maps = GradCAM(normalize=False)(model, x)
    torch.testing.assert_close(maps, GradCAM(f"backbone.blocks.{block}", normalize=False)(model, x))
    assert maps.any()
    tokens = nn.Sequential(model.normalize, *net.blocks[: block + 1])(x).detach().requires_grad_()
    after = nn.Sequential(*net.blocks[block + 1 :])(tokens)
    scores = model.head(net.pool(after))
    (gradient,) = torch.autograd.grad(scores.amax(1).sum(), tokens)
    alpha = net.grid(gradient).mean((2, 3), keepdim=True)
    expected = (alpha * net.grid(tokens.detach())).sum(1, keepdim=True).relu()
    torch.testing.assert_close(maps, F.interpolate(expected, (16, 16), mode="bilinear")[:, 0])


def test_a_resnet_is_explained_at_the_end_of_its_last_stage():
    torch.manual_seed(0)
    model = Classifier(Normalize([0.5] * 3, [0.25] * 3), backbones.resnet20(), heads.Linear(64, 4)).train()
    x = images(2, (16, 16))
    last = model.backbone.stage_ends[-1]
    torch.testing.assert_close(GradCAM()(model, x), GradCAM(f"backbone.blocks.{last}")(model, x))


class Odd(nn.Module):
    """Networks that are a trial, one a mode."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mode = mode
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.unused = nn.Conv2d(3, 3, 3)
        self.linear = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> object:
        h = self.conv(x)
        if self.mode == "twice":
            h = self.conv(h)
        if self.mode == "overwrites":
            h.mul_(2).relu_()
        if self.mode == "fails":
            raise RuntimeError("in the middle")
        if self.mode == "cuts":
            h = h.detach()
        if self.mode == "no gradients":
            with torch.no_grad():
                return self.linear(h.mean((2, 3)))
        scores = self.linear(h.mean((2, 3)))
        returned = {
            "tuple": (scores, h), "logits": {"features": h, "logits": scores}, "mapping": {"scores": scores},
            "object": object(), "maps": h, "ignores": x.mean((2, 3)) @ self.linear.weight.T,
        }  # fmt: skip
        return returned.get(self.mode, scores)


@pytest.mark.parametrize("mode", ["tuple", "logits"])
def test_scores_are_found_in_what_a_model_returns(mode):
    expected = GradCAM("conv")(Odd("plain"), images())
    torch.testing.assert_close(GradCAM("conv")(Odd(mode), images()), expected)
    found = GradCAM("conv", output=lambda result: 2 * result["scores"] + 1)(Odd("mapping"), images())
    torch.testing.assert_close(found, expected)


def test_a_layer_whose_output_is_overwritten():
    model, x = Odd("overwrites"), images()
    before = GradCAM("conv", normalize=False)(model, x)
    with torch.no_grad():
        maps = model.conv(x)
        alpha = (2 * (maps > 0) * model.linear.weight[model(x).argmax(1)][..., None, None]).mean((2, 3), keepdim=True)
        expected = (alpha * maps).sum(1).relu() / maps[0, 0].numel()
    torch.testing.assert_close(before, expected)


@pytest.mark.parametrize(
    ("mode", "layer", "message"),
    [
        ("twice", "conv", "runs more than once"),
        ("plain", "unused", "does not run"),
        ("plain", "linear", r"gives \[3, 4\]"),
        ("cuts", "conv", "do not depend on layer 'conv'"),
        ("ignores", "conv", "do not depend on layer 'conv'"),
        ("no gradients", "conv", "without gradients"),
        ("mapping", "conv", "returns a dict; say where the scores are with output="),
        ("object", "conv", "returns a object"),
    ],
)
def test_layers_and_models_that_do_not_fit(mode, layer, message):
    model = Odd(mode)
    with pytest.raises(ConfigError, match=message):
        GradCAM(layer)(model, images())
    assert not any(module._forward_hooks for module in model.modules())


def test_more_that_does_not_fit():
    with pytest.raises(ShapeError, match="scores of the Odd must be floating point"):
        GradCAM("conv")(Odd("maps"), images())
    with pytest.raises(ConfigError, match="not part of the Odd"):
        GradCAM(nn.Conv2d(3, 3, 3))(Odd("plain"), images())
    with pytest.raises(ConfigError, match="layer must be a module or its name"):
        GradCAM(3)
    with pytest.raises(ConfigError, match="no module of the Sequential gives feature maps"):
        GradCAM()(nn.Sequential(nn.Flatten(), nn.Linear(297, 4)), images())
    mlp = backbones.MLP(image_size=8, hidden=4)
    with pytest.raises(ConfigError, match="more than one pixel"):
        GradCAM()(Classifier(Normalize([0.0] * 3, [1.0] * 3), mlp, heads.Linear(4, 2)), images(size=(8, 8)))


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'last'"):
        GradCAM("lasst")(cnn(), images())
    deep = Classifier(Normalize([0.5] * 3, [0.25] * 3), backbones.resnet56(), heads.Linear(64, 4))
    with pytest.raises(UnknownName, match=r"did you mean 'backbone.blocks.2") as caught:
        GradCAM("backbone.block.27")(deep, images())
    assert len(str(caught.value)) < 800


def snapshot(model: nn.Module) -> tuple[object, ...]:
    return (
        copy.deepcopy(model.state_dict()),
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
        [parameter.grad for parameter in model.parameters()],
        [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
    )


@pytest.mark.parametrize("layer", ["last", None])
@pytest.mark.parametrize("mode", ["eval", "train", "mixed", "frozen"])
def test_leaves_everything_as_it_was(layer, mode):
    model = cnn().train(mode != "eval")
    if mode == "mixed":
        model.norm.eval()
    if mode == "frozen":
        model.requires_grad_(False)
    x = images().requires_grad_()
    model.last.register_forward_hook(lambda *_: None)
    before = snapshot(model)
    maps = GradCAM(layer)(model, x)
    torch.testing.assert_close(snapshot(model), before, rtol=0, atol=0)
    assert x.grad is None
    assert not maps.requires_grad
    assert torch.is_grad_enabled()
    torch.testing.assert_close(maps, GradCAM(layer)(copy.deepcopy(model).eval(), x))  # dropout plays no part


@pytest.mark.parametrize("layer", ["conv", None])
def test_leaves_everything_as_it_was_when_the_model_fails(layer):
    model = Odd("fails").train()
    before = snapshot(model)
    with pytest.raises(RuntimeError, match="in the middle"):
        GradCAM(layer)(model, images())
    torch.testing.assert_close(snapshot(model), before, rtol=0, atol=0)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("layer", ["first", None])
def test_under_a_caller_without_gradients(context, layer):
    model, targets = cnn(), torch.tensor([0, 1, 2])
    expected = GradCAM(layer)(model, images(), targets)
    with context():
        maps = GradCAM(layer)(model, images(), targets.clone())
        assert not torch.is_grad_enabled()
    torch.testing.assert_close(maps, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_precision(dtype):
    model, x = cnn().eval(), images()
    maps = GradCAM("last")(copy.deepcopy(model).to(dtype), x.to(dtype), 1)
    assert maps.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(maps.float(), GradCAM("last")(model, x, 1), rtol=0, atol=0.1)


def test_autocast():
    model, x = cnn().eval(), images()
    with torch.autocast("cpu", torch.bfloat16):
        maps = GradCAM("last")(model, x, 1)
    torch.testing.assert_close(maps, GradCAM("last")(model, x, 1), rtol=0, atol=0.1)


def test_an_empty_batch():
    assert GradCAM()(cnn(), images(0)).shape == (0, 11, 9)


def test_images_do_not_depend_on_each_other():
    model, x = cnn().train(), images(4)
    torch.testing.assert_close(GradCAM("last")(model, x)[2:3], GradCAM("last")(model, x[2:3]))


def test_a_map_of_zeros_stays_one():
    model = cam_net()
    with torch.no_grad():
        model.linear.weight.fill_(-1)  # every map speaks against every class
    assert not GradCAM()(model, images()).any()


def test_is_built_from_a_spec():
    explainer = registry.build("explainers", "grad-cam:layer=last,normalize=false")
    torch.testing.assert_close(explainer(cnn(), images()), GradCAM("last", normalize=False)(cnn(), images()))
    with pytest.raises(ConfigError, match="output"):
        registry.build("explainers", "grad-cam:output=logits")


def test_only_the_part_after_the_layer_is_differentiated():
    """A counter of backward passes before the layer stays at zero."""
    calls: list[int] = []

    class Counted(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: object, grad: Tensor) -> Tensor:
            calls.append(1)
            return grad

    class Marked(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return Counted.apply(x)

    conv, relu, pool, flat, linear = cam_net()
    before = nn.Sequential(conv, Marked(), relu, pool, flat, linear)
    after = nn.Sequential(conv, relu, pool, flat, Marked(), linear)
    GradCAM(relu)(before, images())
    assert calls == []
    GradCAM(relu)(after, images())
    assert calls == [1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_the_models_device():
    model, x = cnn().eval(), images()
    maps = GradCAM("last")(copy.deepcopy(model).cuda(), x, torch.tensor([0, 1, 2]))
    assert maps.device.type == "cuda"
    np.testing.assert_allclose(maps.cpu(), GradCAM("last")(model, x, torch.tensor([0, 1, 2])), atol=1e-2)
