"""Guided back-propagation, against a network whose rule is written into its activations."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire import backbones, heads
from repertoire.errors import ConfigError
from repertoire.explain import GradCAM, GuidedBackprop, GuidedGradCAM
from repertoire.methods import Classifier, Normalize

ACTIVATIONS = {
    "relu": F.relu, "relu_": lambda x: x.relu_(), "method": lambda x: x.relu(), "inplace": nn.ReLU(inplace=True),
    "relu6": nn.ReLU6(), "gelu": nn.GELU(), "tanh": lambda x: F.gelu(x, approximate="tanh"), "silu": F.silu,
    "mish": nn.Mish(), "hardswish": nn.Hardswish(), "elu": nn.ELU(), "leaky": nn.LeakyReLU(0.2), "softplus": F.softplus,
}  # fmt: skip


class Rule(torch.autograd.Function):
    """An activation of which only the positive part of a gradient comes back, times the derivative."""

    @staticmethod
    def forward(ctx, x, act):
        ctx.act = act
        ctx.save_for_backward(x)
        return act(x.clone())

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(ctx.act(leaf.clone()).sum(), leaf)
        return slope * gradient.clamp_min(0), None


class Net(nn.Module):
    def __init__(self, act: object, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.act = act
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, 2)
        self.linear = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.a(x))
        return self.linear(self.act(self.b(y)).mean((2, 3)))


def images(count: int = 3, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 9, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", ACTIVATIONS)
@settings(max_examples=4, deadline=None)
@given(st.integers(0, 99))
def test_equals_the_definition(name, seed):
    act, x = ACTIVATIONS[name], images(seed=seed).double()
    model = Net(act, seed).double()
    ruled = Net(lambda y: Rule.apply(y, act), seed).double()
    targets = torch.tensor([[0, 1], [2, 3], [1, 1]])
    maps = GuidedBackprop(normalize=False)(model, x, targets)
    for k in range(2):
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(ruled(leaf).gather(1, targets[:, k : k + 1]).sum(), leaf)
        torch.testing.assert_close(maps[:, k], gradient.abs().amax(1))
    assert x.grad is None
    assert not x.requires_grad


def test_the_rule_of_the_paper_by_hand():
    """Pass on what is positive, where the input was."""

    class Two(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = F.relu(x[:, 0])
            return torch.stack([(y * torch.tensor([1.0, -1.0, 2.0, 3.0])).sum((1, 2)), y.sum((1, 2))], 1)

    x = torch.tensor([[[[1.0, 1.0, -1.0, 2.0]]]])
    found = GuidedBackprop(normalize=False)(Two(), x, 0)
    torch.testing.assert_close(found, torch.tensor([[[1.0, 0.0, 0.0, 3.0]]]))


def test_agrees_with_pytorch_grad_cam(peers):
    model = Net(nn.ReLU()).eval()
    x = images()
    ours = GuidedBackprop(normalize=False)(model, x, 2)
    for i in range(3):
        theirs = peers.GuidedBackpropReLUModel(model=model, device="cpu")(x[i : i + 1].clone(), target_category=2)
        torch.testing.assert_close(ours[i], torch.from_numpy(abs(theirs).max(2)), rtol=0, atol=1e-6)


def test_smooth_activations_are_left_alone_if_wanted():
    x = images()
    torch.manual_seed(0)
    parts = [nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.GELU(), nn.Flatten(), nn.LazyLinear(4)]
    model = nn.Sequential(*parts)
    model(x)
    leaf = x.clone().requires_grad_()
    ruled = model[2:](Rule.apply(model[0](leaf), F.relu))
    (gradient,) = torch.autograd.grad(ruled[:, 1].sum(), leaf)
    torch.testing.assert_close(GuidedBackprop(smooth=False, normalize=False)(model, x, 1), gradient.abs().amax(1))
    assert not torch.allclose(GuidedBackprop(normalize=False)(model, x, 1), gradient.abs().amax(1), rtol=1e-2)
    with pytest.raises(ConfigError, match="meets no ReLU in the Net"):
        GuidedBackprop(smooth=False)(Net(F.gelu), x)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (torch.sin, "meets no activation in the Net"),
        (lambda y: y.detach().relu().requires_grad_(), "do not depend on the images"),
    ],
)
def test_networks_that_do_not_fit(act, message):
    with pytest.raises(ConfigError, match=message):
        GuidedBackprop()(Net(act), images())


def test_a_model_without_gradients():
    class Hard(Net):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                return super().forward(x)

    with pytest.raises(ConfigError, match="without gradients"):
        GuidedBackprop()(Hard(F.relu), images())


def test_the_images_and_outer_gradients_are_left_alone():
    model, x = Net(F.relu), images().requires_grad_()
    GuidedBackprop()(model, x)
    assert x.grad is None
    assert x.requires_grad
    # The rule is over with the call.
    (gradient,) = torch.autograd.grad(model(x).sum(), x)
    (again,) = torch.autograd.grad(Net(lambda y: y.where(y > 0, torch.zeros(())))(x).sum(), x)
    torch.testing.assert_close(gradient, again)


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_guided_grad_cam_is_the_product(kind):
    torch.manual_seed(0)
    if kind == "resnet":
        net = backbones.ResNet(8, in_channels=3, width=4)
    else:
        net = backbones.ViT(image_size=16, patch=4, dim=12, depth=2, heads=2)
    model = Classifier(Normalize([0.5] * 3, [0.25] * 3), net, heads.Linear(net.out_features, 4)).eval()
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for targets in (None, 1, torch.tensor([[0, 1], [2, 3]])):
        product = GradCAM()(model, x, targets) * GuidedBackprop()(model, x, targets)
        largest = product.amax((-2, -1), keepdim=True)
        torch.testing.assert_close(GuidedGradCAM()(model, x, targets), product / largest.masked_fill(largest == 0, 1))
