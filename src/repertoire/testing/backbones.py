"""What every backbone must do."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from repertoire.backbones import Backbone
from repertoire.testing._check import Check, agree, checks, described, example_options, supplied

__all__ = ["check_backbone"]

_SIZE = 32


def check_backbone(factory: Callable[..., Backbone], **options: Any) -> list[Check]:
    """Checks of a network against :class:`repertoire.backbones.Backbone`, on random weights.

    Args:
        factory: the class, or whatever builds one from `in_channels` and `image_size`. An option `pretrained` is set to
            False.
        options: further options to build it with.

    Returns:
        The checks; each is called without arguments.

    Example:
        >>> from repertoire.backbones import ConvNet
        >>> from repertoire.testing import check_backbone
        >>> for check in check_backbone(ConvNet, width=4):
        ...     check()
    """
    return checks(_Backbones(factory, options))


class _Backbones:
    def __init__(self, factory: Callable[..., Backbone], options: dict[str, Any]) -> None:
        self.factory = factory
        self.options = {**example_options(factory), **supplied(factory, pretrained=False), **options}

    def build(self, channels: int = 3) -> Backbone:
        context = supplied(self.factory, in_channels=channels, image_size=_SIZE)
        return self.factory(**{**context, **self.options})

    def images(self, count: int = 3, channels: int = 3) -> Tensor:
        return torch.randn(count, channels, _SIZE, _SIZE, generator=torch.Generator().manual_seed(0))

    @cached_property
    def state(self) -> tuple[Backbone, dict[str, Tensor]]:
        """A network and its state, whose normalisation is not the initial one: that would hide a wrong order."""
        torch.manual_seed(0)
        net = self.build()
        for module in net.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
                module.running_mean.normal_(0, 0.1)
                # Some networks start with the last gain of a residual branch at zero, and no gradient passes that.
                module.weight.data.uniform_(0.5, 1.5)
        return net, {name: value.clone() for name, value in net.state_dict().items()}

    def net(self) -> Backbone:
        """The same network as in every other check."""
        net, state = self.state
        net.load_state_dict(state)
        net.requires_grad_(True).zero_grad(set_to_none=True)
        return net.eval()

    def check_it_is_documented(self) -> None:
        described(self.factory)
        assert isinstance(self.net(), Backbone)

    def check_blocks_stages_and_groups(self) -> None:
        net = self.net()
        assert isinstance(net.blocks, nn.ModuleList)
        assert net.in_channels == 3
        assert net.stage_ends == sorted(set(net.stage_ends)), "stage_ends increase"
        assert net.stage_ends[0] >= 0
        assert net.stage_ends[-1] == len(net.blocks) - 1, "the last stage ends with the last block"
        assert 0 <= net.stem <= net.stage_ends[0]
        groups = net.groups()
        assert len(groups) == len(net.stage_ends) + (net.stem > 0)
        assert all(groups)
        named = sorted(name for names in groups for name in names)
        assert named == sorted(name for name, _ in net.named_parameters()), "each parameter is in one group"
        starts = [*([0] if net.stem else []), net.stem, *(end + 1 for end in net.stage_ends)]
        for number, names in enumerate(groups):
            places = [int(name.split(".")[1]) for name in names if name.startswith("blocks.")]
            assert all(starts[number] <= place < starts[number + 1] for place in places), "groups follow the blocks"
        assert net.preset is None, "random weights expect nothing of the images"
        if net.published is not None:
            assert len(net.published.mean) == net.in_channels
            assert net.published.source

    def check_forward_is_the_composition_of_the_blocks(self) -> None:
        net, x, ends = self.net(), self.images(), []
        with torch.no_grad():
            for index, block in enumerate(net.blocks):
                before = x.clone()
                y = block(x)
                assert isinstance(y, Tensor), "one tensor crosses from each block to the next"
                assert torch.equal(x, before), f"block {index} changes its input in place"
                x = y
                if index in net.stage_ends:
                    maps = net.grid(x)
                    assert maps.shape[:1] == (3,)
                    assert maps.dim() == 4
                    assert maps.shape[2] == maps.shape[3]
                    ends.append(x if x.dim() == 3 else maps)
            features = net(self.images())
            agree(net.forward_map(self.images()), x)
            agree(net.pool(x), features)
            agree(net.stages(self.images()), ends)
        assert features.shape == (3, net.out_features)
        assert features.isfinite().all()

    def check_gradients_reach_everything(self) -> None:
        net = self.net().train()
        outputs: list[Tensor] = []

        def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
            output.retain_grad()
            outputs.append(output)

        handles = [block.register_forward_hook(keep) for block in net.blocks]
        try:
            weights = torch.randn(net.out_features, generator=torch.Generator().manual_seed(2))
            (net(self.images(4)) * weights).square().sum().backward()
        finally:
            for handle in handles:
                handle.remove()
        dead = [
            name
            for name, p in net.named_parameters()
            if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()
        ]
        assert not dead, f"no gradient reaches {dead}"
        assert len(outputs) == len(net.blocks)
        assert all(output.grad is not None for output in outputs), "an output is changed before the backward pass"

    def check_images_do_not_depend_on_each_other(self) -> None:
        net, order = self.net(), torch.tensor([2, 0, 1])
        with torch.no_grad():
            expected = net(self.images())
            for found, wanted in (
                (net(self.images()[:1]), expected[:1]),
                (net(self.images()[order]), expected[order]),
                (net(self.images().contiguous(memory_format=torch.channels_last)), expected),
            ):
                agree(found, wanted, rtol=1e-3, atol=1e-4)

    def check_the_last_stage_learns_alone(self) -> None:
        net = self.net()
        last = set(net.groups()[-1])
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(name in last)
        net(self.images()).square().sum().backward()
        assert {name for name, p in net.named_parameters() if p.grad is not None} == last

    def check_its_state_is_complete(self) -> None:
        net, other = self.net(), self.build().eval()
        other.load_state_dict({name: value.clone() for name, value in net.state_dict().items()})
        with torch.no_grad():
            agree(other(self.images()), net(self.images()), rtol=0, atol=0)

    def check_grey_images(self) -> None:
        net = self.build(channels=1).eval()
        assert net.in_channels == 1
        with torch.no_grad():
            assert net(self.images(2, 1)).shape == (2, net.out_features)
