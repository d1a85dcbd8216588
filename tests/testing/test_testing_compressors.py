"""Each check of a compressor finds what it is there for."""

from __future__ import annotations

import itertools

import pytest
from broken import every_check_is_tried, failing
from torch import nn

from repertoire.compress import half as whole
from repertoire.testing import check_compressor
from repertoire.weights import Stored, form

_COUNT = itertools.count()


def undocumented(model, sharpness):
    return whole(model)


def in_place(model: nn.Module) -> Stored:
    """Gives the network in half precision, and rounds the one it was given.

    Args:
        model: the network.
    """
    stored = whole(model)
    model.half().float()
    return stored


def at_random(model: nn.Module) -> Stored:
    """Gives the network with a little noise.

    Args:
        model: the network.
    """
    tensors = {n: v + next(_COUNT) * 1e-3 if v.is_floating_point() else v for n, v in model.state_dict().items()}
    return Stored("dense", tensors)


def of_weights_only(model: nn.Module) -> Stored:
    """Gives the parameters, and takes everything else from the network that is there.

    Args:
        model: the network.
    """
    return Stored("weights-only", {name: value.detach().clone() for name, value in model.named_parameters()})


@form("weights-only")
def _weights_only(model, tensors):
    model.load_state_dict(dict(tensors), strict=False)
    return model


class _Larger(Stored):
    @property
    def bytes(self) -> int:
        return super().bytes - 8


def larger(model: nn.Module) -> Stored:
    """Gives the network in half precision, and a size that leaves something out.

    Args:
        model: the network.
    """
    return _Larger("half", whole(model).tensors)


@form("beside-others")
def _beside_others(model, tensors):
    class Beside(nn.Sequential):
        def forward(self, images):
            logits = super().forward(images)
            return logits - logits.mean(0)

    return Beside(*Stored("half", tensors).build(model))


def beside_others(model: nn.Module) -> Stored:
    """Gives the network in half precision, whose answers depend on the other rows.

    Args:
        model: the network.
    """
    return Stored("beside-others", whole(model).tensors)


@form("by-value")
def _by_value(model, tensors):
    class ByValue(nn.Sequential):
        def forward(self, images):
            logits = super().forward(images)
            return logits if float(images.sum()) > 0 else logits + 1

    return ByValue(*Stored("half", tensors).build(model))


def by_value(model: nn.Module) -> Stored:
    """Gives a network that decides by the value of its input.

    Args:
        model: the network.
    """
    return Stored("by-value", whole(model).tensors)


@form("whatever-fits")
def _whatever_fits(model, tensors):
    own = model.state_dict()
    held = {k: v.float() for k, v in tensors.items() if k in own and own[k].shape == v.shape}
    model.load_state_dict(held, strict=False)
    return model


def of_whatever_fits(model: nn.Module) -> Stored:
    """Gives the network in half precision, for any network.

    Args:
        model: the network.
    """
    return Stored("whatever-fits", whole(model).tensors)


BROKEN = {
    "it is documented": undocumented,
    "the network stays as it was": in_place,
    "it gives the same network every time": at_random,
    "what is built does not depend on the weights that were there": of_weights_only,
    "its file is as large as it says and gives the same network": larger,
    "a row does not depend on the others": beside_others,
    "it can be exported": by_value,
    "another network is refused": of_whatever_fits,
}


def test_a_whole_one_passes_and_every_check_is_tried():
    every_check_is_tried(check_compressor, whole, BROKEN)


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_found(name):
    assert name in failing(check_compressor, BROKEN[name])
