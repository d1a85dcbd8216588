"""Methods and backbones under `torch.compile`: value and gradient are those of eager code.

Losses and heads are looked at by their own suites, and so are explainers of compiled networks.

Every method is traced, and its graphs are run as they are. Where `torch.compile` also traces the backward pass, which
costs as much again, it can trip over how an operation is written, and those of losses, heads and backbones are looked
at where they are tested; or over a step that takes gradients itself, since it gives none of a second order. So such a
step goes all the way, and so does one method of each kind (`matrix.py`).
"""

from __future__ import annotations

import copy

import pytest
import torch
from matrix import WHOLE, kinds_of_methods, pick
from torch import Tensor

from repertoire import registry
from repertoire.data import Batch
from repertoire.errors import MissingExtra
from repertoire.methods import Method
from repertoire.testing import batch_for, build_method

#: What has to be said to build a backbone whose name alone does not, or which is large.
SPECS = {
    "timm": "timm:resnet18",
    "lite0": "lite0:pretrained=false",
    **{name: f"{name}:width=4" for name in ("convnet", "resnet20")},
}
#: Deeper networks of a class prove nothing that the shallow ones do not; the other one has nothing to learn.
LEFT_OUT = ("resnet32", "resnet44", "resnet56", "resnet110", "lite1", "lite2", "identity")
BACKBONES = [name for name in registry.names("backbones") if name not in LEFT_OUT]


def double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def found(method: Method, step, batch: Batch) -> dict[str, Tensor]:
    """The loss, and the gradient of every parameter."""
    torch.manual_seed(0)
    loss = step(batch)
    loss.backward()
    gradients = {name: p.grad for name, p in method.named_parameters() if p.grad is not None}
    method.zero_grad(set_to_none=True)
    return {"loss": loss.detach(), **gradients}


def takes_gradients(name: str) -> bool:
    """Whether the step of a method takes gradients on its way to the loss."""
    method, calls = build_method(name), []
    with pytest.MonkeyPatch.context() as patch:
        original = torch.autograd.grad
        patch.setattr(torch.autograd, "grad", lambda *args, **how: calls.append(1) or original(*args, **how))
        method.step(batch_for(method))
    return bool(calls)


def backend_for(name: str) -> str:
    (kind,) = (kind for kind in kinds_of_methods() if name in kind)
    return "aot_eager" if WHOLE or name == pick(kind, "compiled") or takes_gradients(name) else "eager"


def compiles(name: str, backend: str, tolerance: float) -> None:
    # One layer of a network has all that a step does with a network.
    method = build_method(name, backbone="convnet:width=4,depth=1").double()
    batch, eager = batch_for(method).map(double), copy.deepcopy(method)
    torch._dynamo.reset()
    compiled = torch.compile(lambda batch: method.step(batch).loss, backend=backend)
    # Twice, since what a method remembers is there the second time.
    for _ in range(2):
        expected = found(eager, lambda batch: eager.step(batch).loss, batch)
        close(found(method, compiled, batch), expected, tolerance)
        eager.after_update()
        method.after_update()
    close(method.state_dict(), eager.state_dict(), tolerance)


def close(values: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert values.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(
            values[key], value, rtol=tolerance, atol=tolerance, equal_nan=True, msg=lambda text, k=key: f"{k}: {text}"
        )


@pytest.mark.parametrize("name", registry.names("methods"))
def test_a_compiled_step_is_the_step(name: str):
    compiles(name, backend_for(name), 1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["supervised", "simclr"])
def test_a_step_compiled_for_the_processor_is_the_step(name: str):
    try:
        torch.compile(lambda x: x + 1)(torch.ones(1))
    except Exception as error:
        pytest.skip(f"nothing to compile with here: {type(error).__name__}")
    compiles(name, "inductor", 1e-6)


@pytest.mark.parametrize("name", BACKBONES)
def test_a_compiled_backbone_is_the_backbone(name: str):
    try:
        net = registry.build("backbones", SPECS.get(name, name), in_channels=3, image_size=32).double().eval()
    except MissingExtra as error:
        pytest.skip(str(error))
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 32, 32, generator=generator, dtype=torch.float64).requires_grad_()
    weights = torch.randn(net.out_features, generator=generator, dtype=torch.float64)
    torch._dynamo.reset()
    expected, compiled = net(images), torch.compile(net, backend="aot_eager")(images)
    torch.testing.assert_close(compiled, expected, rtol=1e-8, atol=1e-8)
    leaves = [images, *net.parameters()]
    wanted = torch.autograd.grad((expected * weights).sum(), leaves, allow_unused=True)
    given = torch.autograd.grad((compiled * weights).sum(), leaves, allow_unused=True)
    torch.testing.assert_close(given, wanted, rtol=1e-7, atol=1e-8)
