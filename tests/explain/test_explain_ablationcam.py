"""Ablation-CAM against its definition, and the replay of a part of a network."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire import backbones, heads
from repertoire.errors import ConfigError
from repertoire.explain import AblationCAM, GradCAM
from repertoire.explain._explainer import undisturbed
from repertoire.explain.cam._replay import Replay
from repertoire.methods import Classifier, Normalize


def classifier(kind: str) -> Classifier:
    torch.manual_seed(0)
    if kind == "resnet":
        net = backbones.ResNet(8, in_channels=3, width=4)
    else:
        net = backbones.ViT(image_size=16, patch=4, dim=12, depth=3, heads=2, pooling="cls")
    return Classifier(Normalize([0.5] * 3, [0.25] * 3), net, heads.Linear(net.out_features, 4)).eval()


def images(count: int = 3, side: int = 16, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def without(model: nn.Module, module: nn.Module, x: Tensor, change: object) -> Tensor:
    """Scores of the whole network with a module's output changed."""
    handle = module.register_forward_hook(lambda _, __, output: change(output.clone()))
    with torch.no_grad():
        scores = model(x)
    handle.remove()
    return scores


def reference(model: Classifier, module: nn.Module, image: Tensor, target: int) -> Tensor:
    """The paper's weights for one image, a whole pass for each map."""
    seen: list[Tensor] = []
    scores = without(model, module, image[None], lambda y: seen.append(model.backbone.grid(y)) or y)
    whole, maps = float(scores[0, target]), seen[0][0]

    def ablate(k: int) -> object:
        def change(y: Tensor) -> Tensor:
            model.backbone.grid(y)[:, k] = 0  # a view
            return y

        return change

    heat = torch.zeros_like(maps[0])
    for k in range(len(maps)):
        lost = whole - float(without(model, module, image[None], ablate(k))[0, target])
        heat += lost / abs(whole) * maps[k]
    return heat.clamp_min(0)


@pytest.mark.parametrize("kind", ["resnet", "vit"])
@settings(max_examples=8, deadline=None)
@given(st.integers(1, 3), st.integers(1, 50), st.integers(1, 3), st.integers(0, 99))
def test_equals_the_definition(kind, count, rows, block, seed):
    model, x = classifier(kind).double(), images(count, seed=seed).double()
    block = min(block, 2)  # of the last block's tokens, the class token alone is read
    targets = torch.arange(count) % 4
    maps = AblationCAM(f"backbone.blocks.{block}", rows=rows, normalize=False)(model, x, targets)
    for i in range(count):
        expected = reference(model, model.backbone.blocks[block], x[i], int(targets[i]))
        expected = F.interpolate(expected[None, None], (16, 16), mode="bilinear", align_corners=False)[0, 0]
        torch.testing.assert_close(maps[i], expected)


def test_agrees_with_pytorch_grad_cam(peers):
    """Where the scores are positive; the peer divides by the score itself."""
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 3), nn.Softplus()
    ).eval()
    x = images()
    for target in range(3):
        ours = AblationCAM("1")(model, x, target)
        with peers.AblationCAM(model, [model[1]]) as peer:
            theirs = torch.from_numpy(peer(x.clone(), [ClassifierOutputTarget(target)] * 3))
        low = ours.amin((1, 2), keepdim=True)  # the peer shifts each map to start at zero
        torch.testing.assert_close(
            (ours - low) / (ours.amax((1, 2), keepdim=True) - low + 1e-7), theirs, rtol=0, atol=1e-4
        )


def test_is_cam_for_a_linear_read_out():
    """Without a map, the score loses what the map contributes: its weight times its mean."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)
    ).double()
    x = images().double()
    maps = model[:2](x).detach()
    lost = model[4].weight[1] * maps.mean((2, 3))
    expected = ((lost[..., None, None] * maps).sum(1) / model(x)[:, 1, None, None].abs()).relu().detach()
    expected = F.interpolate(expected[:, None], (16, 16), mode="bilinear")[:, 0]
    torch.testing.assert_close(AblationCAM("1", normalize=False)(model, x, 1), expected)
    chosen = maps.square().mean((2, 3)).topk(2, dim=1).indices
    kept = torch.zeros(3, 6, dtype=torch.float64).scatter(1, chosen, 1.0)[..., None, None]
    two = ((lost[..., None, None] * maps * kept).sum(1) / model(x)[:, 1, None, None].abs()).relu().detach()
    two = F.interpolate(two[:, None], (16, 16), mode="bilinear")[:, 0]
    torch.testing.assert_close(AblationCAM("1", channels=2, normalize=False)(model, x, 1), two)


def test_a_negative_score_does_not_turn_the_map_over():
    model, x = classifier("resnet"), images()
    with torch.no_grad():
        model.head.linear.bias.fill_(-100) if hasattr(model.head, "linear") else model.head.bias.fill_(-100)
    low = AblationCAM("stage3")(model, x, 1)
    with torch.no_grad():
        model.head.linear.bias.fill_(100) if hasattr(model.head, "linear") else model.head.bias.fill_(100)
    torch.testing.assert_close(low, AblationCAM("stage3")(model, x, 1), rtol=1e-3, atol=1e-3)


def test_the_layer_of_a_class_token_is_found():
    model, x = classifier("vit"), images()
    torch.testing.assert_close(AblationCAM()(model, x), AblationCAM("backbone.blocks.2")(model, x))


class Crooked(nn.Module):
    """A connection past the layer, a part in place, one more that is written down in functions, one module that runs
    twice before the layer, and one that runs before and after it."""

    def __init__(self, hide: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hide = hide
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True))
        self.twice = nn.Conv2d(4, 4, 3, padding=1)
        self.branch = nn.Conv2d(4, 4, 1)
        self.shared = nn.Hardswish()
        self.unused = nn.Conv2d(4, 4, 1)
        self.inner = nn.ModuleDict({"layer": nn.Conv2d(4, 4, 3, padding=1), "after": nn.Conv2d(4, 4, 1)})
        self.linear = nn.Linear(4, 5)
        self.heavy = 0

    def forward(self, x: Tensor) -> Tensor:
        stem = self.stem(2 * x - 1)
        branch = self.branch(self.shared(stem))
        y = self.twice(F.relu(self.twice(stem), inplace=True)).relu_()
        y = self.inner["layer"](y)
        y = self.shared(self.inner["after"](y.relu_()))
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.hide):
            past = branch.mul_(branch.sigmoid())
        return self.linear((y + past).mean((2, 3)) + x.mean((1, 2, 3))[:, None])


@pytest.mark.parametrize("hide", [False, True])
@pytest.mark.parametrize("layer", ["inner.layer", "stem", "twice", "inner.after"])
def test_replay_equals_the_whole_network(hide, layer):
    model, x = Crooked(hide).eval(), images(4)
    if layer == "twice":
        with pytest.raises(ConfigError, match="runs more than once"):
            AblationCAM("twice")(model, x)
        return
    module = model.get_submodule(layer)
    before = [dict(vars(part)) for part in model.modules()]
    with undisturbed(model):
        replay = Replay(model, module, x, lambda result, rows: result)
        rows = torch.tensor([2, 0, 0, 3, 1, 2])
        found = replay(rows, replay.output[rows] * 0.5)
        expected = without(model, module, x[rows], lambda y: 0.5 * y)
        torch.testing.assert_close(found, expected)
    for part, was in zip(model.modules(), before, strict=True):
        assert vars(part).keys() == was.keys()
        assert not part._forward_hooks
        assert not part._forward_pre_hooks


def test_what_precedes_the_layer_runs_once_for_all_maps():
    class Counted(nn.Identity):
        runs = 0

        def forward(self, x: Tensor) -> Tensor:
            Counted.runs += 1
            return x

    torch.manual_seed(0)
    model = nn.Sequential(
        Counted(), nn.Conv2d(3, 40, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(40, 3)
    ).eval()
    AblationCAM("2", rows=8)(model, images())
    assert Counted.runs == 3, "for the choice of class and gradient, for one image's uses, for what is replayed"


def test_survives_a_model_that_fails_at_the_second_pass():
    class Fails(Crooked):
        passes = 0

        def forward(self, x: Tensor) -> Tensor:
            scores = super().forward(x)
            self.passes += 1
            if self.passes > 4:
                raise RuntimeError("in the middle")
            return scores

    model = Fails().eval()
    with pytest.raises(RuntimeError, match="in the middle"):
        AblationCAM("inner.layer", rows=2)(model, images())
    assert not any(
        part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part) for part in model.modules()
    )


def test_another_layer_than_grad_cam_is_not_needed():
    model, x = classifier("resnet"), images()
    assert AblationCAM()(model, x).shape == GradCAM()(model, x).shape
