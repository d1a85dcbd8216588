"""Modules that are made from functions, and losses with an added term."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Annotated

import pytest
import torch
from torch import Tensor

from repertoire import registry
from repertoire.errors import ConfigError
from repertoire.losses import (
    CLIP,
    LDAM,
    LOOK,
    EmbeddingLoss,
    EnergyConfusion,
    Focal,
    LogitsLoss,
    NTXent,
    Reduction,
    SigmoidPairwise,
    SupCon,
    WassersteinUniformity,
    clip_loss,
    look_loss,
    nt_xent_loss,
    supcon_loss,
)
from repertoire.ranges import AtLeast, Between, Finite, Positive, Share, checked


@checked
def weighed(logits: Tensor, targets: Tensor, *, power: Annotated[float, Positive] = 2.0, reduction: Reduction = "mean"):
    """A loss for this test.

    Args:
        logits: float `[N, C]`.
        targets: int64 `[N]`.
        power: how much,
            positive.
        reduction: as ever.
    """
    return (logits.gather(1, targets[:, None]) ** power).mean()


class Weighed(LogitsLoss, function=weighed):
    """Module form of `weighed`.

    More about it.
    """


def test_a_module_has_the_options_of_its_function():
    signature = inspect.signature(Weighed)
    assert {n: p.default for n, p in signature.parameters.items()} == {"power": 2.0, "reduction": "mean"}
    loss = Weighed(3.0, "sum")
    assert (loss.power, loss.reduction, repr(loss)) == (3.0, "sum", "Weighed(power=3.0, reduction='sum')")
    logits, targets = torch.rand(2, 3), torch.tensor([0, 1])
    assert torch.equal(loss(logits, targets), weighed(logits, targets, power=3.0))
    for twin in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert torch.equal(twin(logits, targets), loss(logits, targets))
    with pytest.raises(ConfigError, match=r"^power must be positive, found 0$"):
        Weighed(power=0)
    with pytest.raises(ConfigError, match=r"^power must be positive, found 0$"):
        weighed(logits, targets, power=0)
    with pytest.raises(TypeError, match="strength"):
        Weighed(strength=1.0)


def test_its_documentation_is_made_too():
    text = Weighed.__doc__
    assert text.startswith("A loss for this test.\n")
    assert "More about it." in text
    assert "    power: how much,\n            positive.\n" in text or "power: how much,\n        positive." in text
    assert "logits: float" in text.partition("Shapes:")[2]


def test_tensors_that_are_kept_are_state():
    loss = LDAM([3, 1], margin=0.2)
    assert loss.state_dict().keys() == {"counts"}
    assert torch.equal(loss.counts, torch.tensor([3.0, 1.0]))
    assert repr(loss) == "LDAM(margin=0.2, scale=30.0, reduction='mean')"
    assert Focal(weight=[1.0, 2.0]).weight.tolist() == [1.0, 2.0]
    with pytest.raises(TypeError, match="counts"):
        LDAM()


def test_any_loss_on_views_may_ask_for_more_of_them():
    assert (NTXent().views, NTXent(views=4).views) == (2, 4)
    assert registry.build("losses", "nt-xent:views=3").views == 3
    with pytest.raises(ConfigError, match="views must be 2 or more"):
        NTXent(views=1)


@pytest.mark.parametrize(
    ("range_", "inside", "outside", "words"),
    [
        (Positive, [1e-9, 5], [0, -1, float("nan")], "must be positive"),
        (AtLeast(1), [1, 2.5], [0.9, float("nan")], "must be 1 or more"),
        (Share, [0, 0.5, 1], [-0.1, 1.1], r"must lie in \[0, 1\]"),
        (Between(0, 1, "[)"), [0, 0.99], [1, -1], r"must lie in \[0, 1\)"),
        (Finite, [-5, 0], [float("inf"), float("-inf"), float("nan")], "must be a finite number"),
        (Positive, [1], [float("inf")], "must be a finite number"),
        (Positive, [], ["1.0", [1.0]], "must be a number"),
    ],
)
def test_ranges(range_, inside, outside, words):
    def plain(value=None):
        return value

    plain.__annotations__ = {"value": Annotated[float, range_] | None}
    function = checked(plain)
    for value in [*inside, None]:
        assert function(value) == value
    for value in outside:
        with pytest.raises(ConfigError, match=words):
            function(value)
        with pytest.raises(ValueError, match=words):
            function(value=value)


def test_whole_numbers_and_choices():
    with pytest.raises(ConfigError, match=r"queue must be a whole number, found 1\.5"):
        LOOK(queue=1.5, dimensions=3)
    with pytest.raises(ConfigError, match="reduction must be 'mean', 'sum' or 'none', found 'avg'"):
        Focal(reduction="avg")


def test_a_term_passes_on_what_its_base_wants_and_remembers():
    loss = WassersteinUniformity("individual-temperatures", samples=8)
    assert loss.wants == ("index",)
    x, y = torch.randn(2, 4, 3)
    loss(x, y, index=torch.arange(4))
    assert loss.base.log_means.isinf().all()
    loss.after_update()
    assert loss.base.log_means[:4].isfinite().all()
    clip = WassersteinUniformity("clip")
    with torch.no_grad():
        clip.base.log_scale.fill_(100.0)
    clip.after_update()
    assert clip.base.temperature == pytest.approx(0.01)
    queue = EnergyConfusion("memory-info-nce:queue=16")
    queue.prepare(3)
    queue(x, torch.tensor([0, 0, 1, 1]))
    queue.after_update()
    assert len(queue.base.queue) == 4
    with pytest.raises(ConfigError, match="base must compare embeddings with each other, found 'proxy-anchor'"):
        EnergyConfusion("proxy-anchor", num_classes=3)
    assert isinstance(registry.build("losses", "energy-confusion:base=spcl", num_classes=3).base, EmbeddingLoss)


def test_a_learned_scale_beyond_its_bound_stays_there_and_comes_back():
    for loss in (CLIP(), SigmoidPairwise()):
        with torch.no_grad():
            loss.log_scale.fill_(50.0)
        x, y = torch.randn(2, 5, 4)
        for mode in (True, False):
            value = loss.train(mode)(x, y)
            assert value.isfinite()
        (gradient,) = torch.autograd.grad(value, loss.log_scale)
        assert gradient != 0
        assert loss.temperature == pytest.approx(0.01)
        torch.testing.assert_close(CLIP(0.01)(x, y), clip_loss(x, y, scale=100.0))


@pytest.mark.parametrize(
    "loss",
    [
        lambda t: supcon_loss(X, LABELS, temperature=t),
        lambda t: nt_xent_loss(X, X + 1, temperature=t),
        lambda t: look_loss(X, LABELS, neighbours=3, temperature=t),
        lambda t: look_loss(X, LABELS, neighbours=50, temperature=t),
    ],
    ids=["supcon", "nt-xent", "look", "look, fewer than k"],
)
def test_a_temperature_may_be_learned(loss):
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(loss(temperature).detach(), loss(0.3))
    assert torch.autograd.gradcheck(loss, (temperature,))


X = torch.randn(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(8) % 3


def test_supcon_is_documented_once():
    assert SupCon.__doc__.startswith(supcon_loss.__doc__.partition("\n")[0])
