"""Relevance: the rules against their definitions, on small networks and on whole ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repertoire import backbones
from repertoire.errors import ConfigError, ShapeError, UnknownName
from repertoire.explain import LRP, activation_patching, estimated_patching
from repertoire.explain._frozen import frozen
from repertoire.explain._relevance import Relevance


def relevance(model: nn.Module, x: Tensor, epsilon: float = 0.0) -> tuple[Tensor, Tensor]:
    """What the model gives under the mode, and the relevance of each input for the sum of it."""
    x = x.clone().requires_grad_()
    with frozen(model):
        with Relevance(epsilon):
            y = model(x)
        (slope,) = torch.autograd.grad(y.sum(), x)
    return y.detach(), x.detach() * slope


class Gated(nn.Module):
    """A gate, a softmax attention and a norm written out, without biases."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)
        weights = (self.a(x) @ self.b(x).transpose(1, 2)).softmax(-1)
        x = x + weights @ self.c(x)
        x = self.norm(x)
        return x + F.silu(self.a(x)) * self.b(x)


class Fused(nn.Module):
    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 2, bias=False, batch_first=True)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.norm = nn.RMSNorm(width)
        self.group = nn.GroupNorm(2, 4, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x, x, x, need_weights=False)[0]
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        x = self.group(x + F.scaled_dot_product_attention(q, k, v))
        return F.gelu(x) + F.elu(x) + torch.tanh(x)


@pytest.mark.parametrize("kind", [Gated, Fused])
def test_values_stay_and_relevance_is_conserved_without_biases(kind):
    torch.manual_seed(0)
    model, x = kind().double().eval(), torch.randn(3, 4, 6, dtype=torch.float64)
    y, found = relevance(model, x)
    torch.testing.assert_close(y, model(x).detach(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.sum((1, 2)), y.sum((1, 2)), rtol=1e-5, atol=1e-5)
    # The gradient is no such decomposition.
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(leaf).sum(), leaf)
    assert ((x * gradient).sum((1, 2)) - y.sum((1, 2))).abs().max() > 0.1


@pytest.mark.parametrize(
    "build", [backbones.resnet20, lambda: backbones.ConvNet(width=4), lambda: backbones.ViT(dim=12, depth=2)]
)
def test_networks_give_what_they_give(build):
    torch.manual_seed(0)
    model, x = build().eval(), torch.rand(2, 3, 32, 32)
    y, found = relevance(model, x, epsilon=0.1)
    torch.testing.assert_close(y, model(x).detach(), rtol=1e-4, atol=1e-5)
    assert found.isfinite().all()


def test_of_relu_and_linear_maps_it_is_gradient_times_input():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 5)
    ).eval()
    x = torch.randn(2, 3, 8, 8)
    _, found = relevance(net, x)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net(leaf).sum(), leaf)
    torch.testing.assert_close(found, x * gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("epsilon", [0.1, 1.0])
def test_the_epsilon_rule_unit_by_unit(epsilon):
    torch.manual_seed(0)
    first, second = nn.Linear(4, 5), nn.Linear(5, 1)
    x = torch.randn(4)
    z = first(x)
    a = z.relu()
    y = second(a)

    def shares(inputs: Tensor, layer: nn.Linear, z: Tensor, above: Tensor) -> Tensor:
        size = epsilon * z.square().mean().sqrt()
        below = torch.zeros(len(inputs))
        for j in range(len(z)):
            for i in range(len(inputs)):
                below[i] += inputs[i] * layer.weight[j, i] / (z[j] + size * z[j].sign()) * above[j]
        return below

    expected = shares(x, first, z, shares(a, second, y, y))
    _, found = relevance(nn.Sequential(first, nn.ReLU(), second), x[None], epsilon)
    torch.testing.assert_close(found[0], expected.detach())


@pytest.mark.parametrize("function", [F.gelu, F.silu, F.elu, F.relu, F.leaky_relu, F.hardswish, torch.tanh, F.mish])
def test_an_activation_is_a_factor(function):
    x = torch.tensor([[-2.0, -0.5, 0.0, 1e-9, 0.7, 3.0]], dtype=torch.float64)

    class Apply(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return function(x)

    y, found = relevance(Apply(), x)
    torch.testing.assert_close(y, function(x), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(found, y)


def test_quotients_and_products_in_place():
    class Apply(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = (2.0 * x) / (1 + x.abs())
            z = x * 1.0
            z *= y
            return z

    x = torch.tensor([[0.5, -2.0, 3.0]], dtype=torch.float64)
    y, found = relevance(Apply(), x)
    torch.testing.assert_close(y, 2 * x * x / (1 + x.abs()))
    torch.testing.assert_close(found, y)


def test_lrp_is_read_where_the_first_layer_reads():
    torch.manual_seed(0)

    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 3, padding=1, bias=False)

        def forward(self, images: Tensor) -> Tensor:
            return self.conv((images - 0.5) / 0.25).mean((2, 3))

    model, images = Shifted(), torch.rand(2, 3, 8, 8)
    targets = torch.tensor([[0, 1], [1, 1]])
    found = LRP(epsilon=0.0, normalize=False)(model, images, targets)
    read = ((images - 0.5) / 0.25).requires_grad_()
    scores = model.conv(read).mean((2, 3))
    for k in range(2):
        (slope,) = torch.autograd.grad(scores.gather(1, targets[:, k : k + 1]).sum(), read, retain_graph=True)
        torch.testing.assert_close(found[:, k], (read * slope).sum(1).relu().detach())


def test_lrp_refuses():
    with pytest.raises(ConfigError, match="epsilon must be 0 or more"):
        LRP(epsilon=-1.0)
    probabilities = nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.Softmax(1))
    with pytest.raises(ConfigError, match="if it returns probabilities"):
        LRP()(probabilities, torch.rand(2, 3, 2, 2))
    model = nn.Sequential(nn.Linear(4, 4), nn.MultiheadAttention(4, 2, add_zero_attn=True))
    model.forward = lambda x: model[1](*[model[0](x.flatten(2))] * 3)[0].mean(1)  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match="add_zero_attn"):
        LRP()(model, torch.rand(2, 3, 2, 2))


class Residual(nn.Module):
    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 6)
        self.one, self.two = (
            nn.Sequential(nn.LayerNorm(6) if norm else nn.Identity(), nn.Linear(6, 6), nn.GELU(), nn.Linear(6, 6))
            for _ in range(2)
        )
        self.out = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.one(x)
        return self.out((x + self.two(x)).mean(1))


def pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 5, 4, generator=generator), torch.randn(3, 5, 4, generator=generator)


def metric(logits: Tensor) -> Tensor:
    return logits[:, 0] - logits[:, 1]


def test_patching_by_hand():
    torch.manual_seed(0)
    model, (x, other) = Residual().eval(), pair()
    with torch.no_grad():
        a, b = model.embed(x), model.embed(other)
        before = metric(model(x))
        whole = metric(model.out((lambda h: h + model.two(h))(a + model.one(b)).mean(1))) - before
        patched = model.one(a).clone()
        patched[:, 2] = model.one(b)[:, 2]
        token = metric(model.out((lambda h: h + model.two(h))(a + patched).mean(1))) - before
    found = activation_patching(model, x, other, metric, ["one", "two"])
    torch.testing.assert_close(found["one"], whole)
    assert set(found) == {"one", "two"}
    by_token = activation_patching(model, x, other, metric, ["one"], axis=1)["one"]
    assert by_token.shape == (3, 5)
    torch.testing.assert_close(by_token[:, 2], token)
    assert activation_patching(model, x, other, metric, ["one"], axis=2)["one"].shape == (3, 6)


def test_the_gradient_estimate_is_the_first_order_and_exact_where_linear():
    torch.manual_seed(0)
    model, (x, other) = Residual().eval(), pair()
    found = estimated_patching(model, x, other, metric, ["one", "two"], rule="gradient", axis=1)
    kept = {}
    handle = model.one.register_forward_hook(lambda module, args, output: kept.setdefault("one", output))
    outcome = metric(model(x)).sum()
    handle.remove()
    (slope,) = torch.autograd.grad(outcome, kept["one"])
    with torch.no_grad():
        difference = model.one(model.embed(other)) - kept["one"]
    torch.testing.assert_close(found["one"], (difference * slope).sum(2).detach())
    for rule in ("gradient", "relevance"):
        estimate = estimated_patching(model, x, other, metric, ["two"], rule=rule)["two"]
        torch.testing.assert_close(estimate, activation_patching(model, x, other, metric, ["two"])["two"])


def test_the_relevance_estimate_uses_the_rules():
    torch.manual_seed(0)
    model, (x, other) = Residual().eval(), pair()
    found = estimated_patching(model, x, other, metric, ["one"])["one"]
    with torch.no_grad():
        h = model.embed(x)
        middle = h + model.one(h)
        difference = model.one(model.embed(other)) - model.one(h)
        norm, first, _, last = model.two
        scale = middle.var(-1, keepdim=True, correction=0).add(norm.eps).rsqrt()
        before = first(norm(middle))
        factor = F.gelu(before) / before
        centred = difference - difference.mean(-1, keepdim=True)
        through = ((centred * scale * norm.weight) @ first.weight.T * factor) @ last.weight.T
        expected = metric(((difference + through).mean(1)) @ model.out.weight.T)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_patching_leaves_no_trace_and_refuses():
    torch.manual_seed(0)
    model, (x, other) = Residual().train(), pair()
    before = [p.requires_grad for p in model.parameters()]
    model.out.requires_grad_(False)
    with torch.inference_mode():
        estimated_patching(model, x, other, metric, ["one"])
    assert model.training
    assert [p.requires_grad for p in model.parameters()] == [*before[:-2], False, False]
    assert not any(m._forward_hooks for m in model.modules())
    given = model, x, other
    with pytest.raises(UnknownName, match="tow"):
        activation_patching(*given, metric, ["tow"])
    with pytest.raises(ShapeError, match="one number a sample"):
        estimated_patching(*given, lambda y: y, ["one"])
    with pytest.raises(ShapeError, match="axis must be"):
        estimated_patching(*given, metric, ["one"], axis=3)
    with pytest.raises(ShapeError, match="corrupted must be"):
        activation_patching(model, x, other[:2], metric, ["one"])
    with pytest.raises(ConfigError, match="name the modules"):
        activation_patching(*given, metric, [])
    with pytest.raises(ConfigError, match="rule must be"):
        estimated_patching(*given, metric, ["one"], rule="guess")  # type: ignore[arg-type]
    unused = nn.ModuleDict({"used": nn.Linear(4, 2), "idle": nn.Linear(4, 2)})
    unused.forward = lambda x: unused["used"](x).mean(1)  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match="does not run"):
        estimated_patching(unused, x, other, metric, ["idle"])
    assert not any(m._forward_hooks for m in unused.modules())
