"""What every adapter must do, on a network with layers of many kinds."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from repertoire.adapters import Adapted, Adapter, attach, is_adapted, merge, merged_state, plain_state
from repertoire.errors import CheckpointError, ConfigError
from repertoire.testing._check import Check, agree, checks, described, example_options, refused

__all__ = ["check_adapter"]


def check_adapter(factory: Callable[..., Adapter], **options: Any) -> list[Check]:
    """Checks of an adapter against :class:`repertoire.adapters.Adapter`, on a small network of many kinds of layers.

    Args:
        factory: the class.
        options: options to build it with; what `example_options()` of the class gives where there are none.

    Returns:
        The checks; each is called without arguments.

    Example:
        >>> from repertoire.adapters import LoRA
        >>> from repertoire.testing import check_adapter
        >>> for check in check_adapter(LoRA, rank=2):
        ...     check()
    """
    return checks(_Adapters(factory, options))


class _Adapters:
    def __init__(self, factory: Callable[..., Adapter], options: dict[str, Any]) -> None:
        self.factory, self.options = factory, {**example_options(factory), **options}

    def build(self) -> Adapter:
        return self.factory(**self.options)

    def network(self) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 24, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(24),
            nn.Conv2d(24, 24, 3, padding=2, dilation=2, groups=2),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(96, 40),
            nn.GELU(),
            nn.Linear(40, 20, bias=False),
        ).eval()

    def images(self) -> Tensor:
        return torch.randn(5, 3, 12, 12, generator=torch.Generator().manual_seed(1))

    def moved(self) -> tuple[nn.Module, Adapted]:
        """A network whose adapter has learned something."""
        net = self.network()
        adapted = attach(net, self.build())
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in adapted.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return net, adapted

    def check_it_is_documented(self) -> None:
        described(self.factory)
        assert isinstance(self.build(), Adapter)

    def check_attaching_changes_no_output(self) -> None:
        net = self.network()
        before = net(self.images())
        agree(attach(net, self.build())(self.images()), before, rtol=0, atol=1e-6)

    def check_few_weights_learn_and_none_of_the_network(self) -> None:
        net = self.network()
        adapted = attach(net, self.build())
        learn = {id(p) for p in net.parameters() if p.requires_grad}
        assert learn == {id(p) for p in adapted.parameters()}, "what learns is not what the adapter calls its own"
        frozen = sum(p.numel() for p in net.parameters() if not p.requires_grad)
        assert 0 < adapted.count < frozen, f"{adapted.count} weights learn beside {frozen}: these are not few"

    def check_training_it_lowers_the_loss_and_leaves_the_weights_alone(self) -> None:
        net = self.network()
        adapted = attach(net, self.build())
        frozen = {n: p.clone() for n, p in net.named_parameters() if not p.requires_grad}
        losses = []
        for _ in range(8):
            loss = (adapted(self.images()) - 1).square().mean()
            losses.append(float(loss.detach()))
            learning = list(adapted.parameters())
            gradients = torch.autograd.grad(loss, learning)
            slope = float(sum(g.square().sum() for g in gradients))
            assert slope > 0, "no gradient reaches what should learn"
            with torch.no_grad():
                for parameter, gradient in zip(learning, gradients, strict=True):
                    # So long a step that a straight line would take off a twentieth of the loss, whatever is adapted.
                    parameter.sub_(0.05 * losses[-1] / slope * gradient)
        assert losses[-1] < 0.95 * losses[0], f"the loss went from {losses[0]:.4g} to {losses[-1]:.4g}"
        after = dict(net.named_parameters())
        assert all(torch.equal(after[n], p) for n, p in frozen.items()), "a frozen weight has moved"

    def check_merged_it_is_a_plain_network_that_computes_the_same(self) -> None:
        net, adapted = self.moved()
        assert not torch.allclose(net(self.images()), self.network()(self.images()), atol=1e-3), "it changes nothing"
        plain = adapted.merged()
        assert is_adapted(net)
        assert not is_adapted(plain)
        assert [type(m) for m in plain.modules()] == [type(m) for m in self.network().modules()]
        agree(plain(self.images()), net(self.images()), rtol=1e-5, atol=1e-5)
        state = merged_state(net)
        assert state.keys() == self.network().state_dict().keys()
        twin = self.network()
        twin.load_state_dict(state)
        agree(twin(self.images()), plain(self.images()), rtol=0, atol=0)
        assert merge(net) is net
        agree(net(self.images()), plain(self.images()), rtol=0, atol=0)

    def check_its_stored_state_is_merged_without_a_network(self) -> None:
        net, _ = self.moved()
        expected = merged_state(net)
        stored = plain_state({name: value.clone() for name, value in net.state_dict().items()}, self.build())
        assert stored.keys() == expected.keys()
        agree(stored, {key: expected[key] for key in stored}, rtol=0, atol=0)
        assert plain_state(stored, self.build()) == stored

    def check_its_state_is_its_own_and_complete(self) -> None:
        net, adapted = self.moved()
        state = adapted.state_dict()
        assert sum(v.numel() for v in state.values()) == adapted.count
        other = attach(self.network(), self.build())
        other.load_state_dict(state)
        assert torch.equal(other(self.images()), net(self.images())), "the state does not hold all that it learned"
        whole = self.network()
        attach(whole, self.build())
        whole.load_state_dict(net.state_dict())
        for twin in (whole, copy.deepcopy(net)):
            assert torch.equal(twin(self.images()), net(self.images()))
        refused(CheckpointError, "Attach the same adapter", other.load_state_dict, dict(list(state.items())[1:]))

    def check_it_follows_dtype_and_device(self) -> None:
        net, _ = self.moved()
        assert net.double()(self.images().double()).dtype == torch.float64
        assert all(p.is_meta for p in net.to("meta").parameters())
        half = self.network().double()
        assert {p.dtype for p in attach(half, self.build()).parameters()} == {torch.float64}

    def check_a_second_one_on_the_same_network_is_refused(self) -> None:
        net = self.network()
        attach(net, self.build())
        refused(ConfigError, "merge it first", attach, net, self.build())
