"""A network that writes the weights of a small one for each stage."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from repertoire.errors import ConfigError, DataError
from repertoire.estimators import Hypernetwork

FAST = {"slots": 2, "epochs": 10, "rate": 0.01, "hidden": 16, "units": 8, "chunk": 20}


def stages(count: int = 3, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of classes on opposite sides, each pair along an axis of its own."""
    draw = np.random.default_rng(seed)
    made = []
    for t in range(count):
        side = np.arange(60) % 2
        x = draw.normal(size=(60, 6)) / 2
        x[:, t] += np.where(side == 0, 3, -3)
        made.append((x, 2 * t + side))
    return made


@pytest.mark.parametrize("kind", ["rnn", "chunked"])
def test_the_classifier_is_a_module_with_the_weights_that_were_written(kind: str):
    (x, y), *_ = stages(1)
    model = Hypernetwork(kind=kind, **FAST).fit(x, y)
    weights = model._generator()(torch.from_numpy(model.codes_))[0].double()
    plain = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)).double()
    nn.utils.vector_to_parameters(weights, plain.parameters())
    scaled = x / np.linalg.norm(x, axis=1, keepdims=True) * 6**0.5
    expected = plain(torch.from_numpy(scaled)).softmax(1).detach().numpy()
    np.testing.assert_allclose(model.predict_proba(x), expected, atol=1e-6)
    assert len(model.weights_) == sum(p.numel() for p in model._generator().parameters())


def test_what_is_written_depends_on_earlier_chunks_only_where_it_is_recurrent():
    for kind, depends in (("rnn", True), ("chunked", False)):
        made = Hypernetwork(kind=kind, **FAST)
        made.n_features_in_ = 6
        network = made._generator()
        states = network._states(torch.ones(1, 16, requires_grad=True))
        assert states.shape == (1, network.steps, 16)
        first = states[0, 0]
        if depends:
            # The state of the first chunk is what the second begins with.
            again = network.recurrent(torch.ones(1, 1, 16))[0][0, 0]
            torch.testing.assert_close(first, again)
            assert not torch.allclose(first, states[0, 1])
        else:
            network.places.data[1] += 1
            torch.testing.assert_close(network._states(torch.ones(1, 16))[0, 0], first)


def test_in_the_first_stage_there_is_nothing_to_hold():
    (x, y), *_ = stages(1)
    free, held = (Hypernetwork(strength=strength, **FAST).fit(x, y) for strength in (0.0, 100.0))
    np.testing.assert_array_equal(free.weights_, held.weights_)


def test_what_was_written_is_held_the_more_the_larger_the_strength():
    drifts = []
    for strength in (0.0, 0.01, 1.0):
        model = Hypernetwork(strength=strength, **FAST)
        first, *later = stages()
        model.partial_fit(*first)
        code = torch.from_numpy(model.codes_[:1].copy())
        before = model._generator()(code).detach()
        for x, y in later:
            model.partial_fit(x, y)
        np.testing.assert_array_equal(model.codes_[0], code[0])
        drifts.append(float((model._generator()(code).detach() - before).norm()))
    assert drifts[0] > drifts[1] > drifts[2]


@pytest.mark.parametrize("kind", ["rnn", "chunked"])
def test_stages_are_remembered(kind: str):
    model = Hypernetwork(kind=kind, strength=0.1, **FAST)
    shown = stages()
    for x, y in shown:
        model.partial_fit(x, y)
    for x, y in shown:
        own = np.isin(model.classes_, y)
        within = model.classes_[own][model.predict_proba(x)[:, own].argmax(1)]
        assert (within == y).mean() > 0.9


def test_as_it_begins_layers_have_the_scale_of_layers_that_are_drawn():
    for kind in ("rnn", "chunked"):
        model = Hypernetwork(kind=kind, units=64)
        model.n_features_in_ = 100
        with torch.no_grad():
            made = model._generator()(torch.randn(8, 16))[:, : 64 * 100]
        assert 0.05 < float(made.std()) < 0.2, "0.1 is that of 100 inputs"


def test_what_does_not_fit_is_refused():
    x, y = np.random.default_rng(0).normal(size=(30, 4)), np.arange(30) % 3
    with pytest.raises(DataError, match="slots=3"):
        Hypernetwork(slots=2).fit(x, y)
    for option, value in (("kind", "cnn"), ("code", 0), ("strength", -1.0), ("rate", 0.0)):
        with pytest.raises(ConfigError, match=option):
            Hypernetwork(**{option: value}).fit(x, y)
