"""What every compressor must do: a network to what is stored of it, from which the same network comes every time."""

from __future__ import annotations

import copy
import inspect
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from repertoire.data import Batch
from repertoire.errors import CheckpointError
from repertoire.testing._check import Check, agree, checks, described, example_options, options_of, refused, supplied
from repertoire.weights import Stored

__all__ = ["check_compressor"]


def check_compressor(compressor: Callable[..., Stored], **options: Any) -> list[Check]:
    """Checks of a compressor: `compressor(model, **options)` gives a `Stored` network.

    A compressor whose signature names `base`, `batches` or `score` is given them. One that asks for the weights that
    the network started from may need them again: its network is then built where these are.

    Args:
        compressor: the function.
        options: options to call it with.

    Returns:
        The checks; each is called without arguments.

    Example:
        >>> from repertoire.compress import half
        >>> from repertoire.testing import check_compressor
        >>> for check in check_compressor(half):
        ...     check()
    """
    return checks(_Compressors(compressor, options))


def _network() -> nn.Module:
    """Convolutions, normalisation and a linear layer, with statistics that are not those of the beginning."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(16, 3),
        )
        for _ in range(3):
            net(_images())
    return net.eval()


def _start() -> nn.Module:
    """What the network started from: other kernels and matrices, and other statistics."""
    net = _network()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for value in net.state_dict().values():
            if value.is_floating_point():
                value.add_(0.02 * torch.rand(value.shape, generator=generator))
    return net


def _images(count: int = 12) -> Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def _batches() -> Iterator[Batch]:
    """Two batches, the same at every call."""
    for images, labels in zip(_images(24).split(12), (torch.arange(24) % 3).split(12), strict=True):
        yield Batch((images,), labels, torch.arange(len(labels)))


def _score(model: nn.Module) -> float:
    with torch.no_grad():
        return -float(nn.functional.cross_entropy(model(_images()), torch.arange(12) % 3))


class _Compressors:
    def __init__(self, compressor: Callable[..., Stored], options: dict[str, Any]) -> None:
        self.compressor = compressor
        self.relative = "base" in options_of(compressor)
        self.fresh = _start if self.relative else _network
        given = supplied(compressor, batches=_batches, score=_score, base=_start().state_dict())
        self.options = {**given, **example_options(compressor), **options}
        self._made: Stored | None = None

    def stored(self) -> Stored:
        """Made once for all checks that only look."""
        if self._made is None:
            self._made = self.compressor(_network(), **self.options)
        return self._made

    def check_it_is_documented(self) -> None:
        described(self.compressor)
        named = options_of(self.compressor)
        assert next(iter(named)) == "model", "the first argument of a compressor is called model"
        for name, parameter in list(named.items())[1:]:
            given = name in self.options
            assert given or parameter.default is not inspect.Parameter.empty, f"option {name} has no default"

    def check_the_network_stays_as_it_was(self) -> None:
        net = _network()
        before, training = copy.deepcopy(net.state_dict()), net.training
        needs = [parameter.requires_grad for parameter in net.parameters()]
        self.compressor(net, **self.options)
        agree(dict(net.state_dict()), dict(before), rtol=0, atol=0)
        assert net.training == training, "the mode of the network has changed"
        assert [parameter.requires_grad for parameter in net.parameters()] == needs
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules()), "a hook is left"

    def check_it_gives_the_same_network_every_time(self) -> None:
        again = self.compressor(_network(), **self.options)
        agree(dict(again.tensors), dict(self.stored().tensors), rtol=0, atol=0)
        built = [self.stored().build(self.fresh()).eval() for _ in range(2)]
        with torch.no_grad():
            agree(built[1](_images()), built[0](_images()), rtol=0, atol=0)

    def check_what_is_built_does_not_depend_on_the_weights_that_were_there(self) -> None:
        other = _network()
        with torch.no_grad():
            for value in other.state_dict().values():
                value.zero_()
        if self.relative:  # to other weights than it started from, its change says nothing
            refused(CheckpointError, "", self.stored().build, other)
            return
        with torch.no_grad():
            found, expected = (self.stored().build(net).eval()(_images()) for net in (other, _network()))
        assert found.isfinite().all()
        agree(found, expected, rtol=0, atol=0)

    def check_its_file_is_as_large_as_it_says_and_gives_the_same_network(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "net.safetensors"
            self.stored().save(path)
            assert path.stat().st_size == self.stored().bytes
            again = Stored.load(path)
        with torch.no_grad():
            found, expected = (each.build(self.fresh()).eval()(_images()) for each in (again, self.stored()))
        agree(found, expected, rtol=0, atol=0)

    def check_a_row_does_not_depend_on_the_others(self) -> None:
        net = self.stored().build(self.fresh()).eval()
        with torch.no_grad():
            agree(net(_images())[3:5], net(_images()[3:5]))

    def check_it_can_be_exported(self) -> None:
        net = self.stored().build(self.fresh()).eval()
        exported = torch.export.export(net, (_images(),))
        with torch.no_grad():
            agree(exported.module()(_images()), net(_images()))

    def check_another_network_is_refused(self) -> None:
        refused(CheckpointError, "", self.stored().build, nn.Sequential(nn.Linear(3, 2)))
