"""An index of networks: nodes against loops, no order of classes, a search that finds, the same from a file."""

from __future__ import annotations

import json

import pytest
import torch

from repertoire.errors import ConfigError, DataError, ShapeError
from repertoire.zoo import Alignment, Index, class_nodes, model_nodes

WIDTH = 6


def drawn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def answers(probes: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Of a network that knows these classes."""
    return (-torch.cdist(probes, centres).square()).softmax(1)


def test_nodes_agree_with_loops():
    probabilities, probes = drawn(7, 3, seed=0).softmax(1), drawn(7, WIDTH, seed=1)
    found = model_nodes(probabilities, probes)
    for k in range(3):
        total = sum(float(probabilities[j, k]) for j in range(7))
        for place in range(WIDTH):
            expected = sum(float(probabilities[j, k] * probes[j, place]) for j in range(7)) / total
            assert float(found[k, place]) == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(model_nodes(torch.zeros(7, 1), probes)[0], probes.mean(0))
    labels = torch.tensor([3, -1, 1, 3, 1, 1, -1])
    nodes = class_nodes(probes, labels)
    torch.testing.assert_close(nodes, torch.stack([probes[[2, 4, 5]].mean(0), probes[[0, 3]].mean(0)]))


@pytest.fixture
def index() -> tuple[Index, torch.Tensor]:
    probes, centres = drawn(80, WIDTH, seed=2), drawn(12, WIDTH, seed=3)
    made = Index(probes, {"reference": "lite0"})
    for start in range(0, 12, 3):
        made.add(f"runs/{start}", answers(probes, centres[start : start + 3]))
    return made, centres


def around(centres: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.arange(len(centres)).repeat(5)
    return centres[labels] + 0.1 * drawn(len(labels), WIDTH, seed=seed), labels


def test_a_search_finds_the_network_that_knows_the_classes(index):
    made, centres = index
    for start in range(0, 12, 3):
        found = made.search(*around(centres[start : start + 3], start), count=2)
        assert len(found) == 2
        assert found[0].name == f"runs/{start}"
        assert found[0].score > found[1].score


def test_what_is_learned_does_not_depend_on_the_order_of_classes_and_is_the_same_again(index):
    made, centres = index
    data = [around(centres[start : start + 3], start) for start in range(0, 12, 3)]
    scores = torch.eye(4)
    made.align(data, scores, steps=30, rate=0.003, seed=1)
    assert [made.search(*each)[0].name for each in data] == list(made.names)
    first = made.alignment.state_dict()
    made.align(data, scores, steps=30, rate=0.003, seed=1)
    assert all(torch.equal(value, first[name]) for name, value in made.alignment.state_dict().items())
    align, nodes = made.alignment, list(made.nodes.values())
    query = class_nodes(*data[1])
    turned = [one[torch.tensor([2, 0, 1])] for one in (query, nodes[1])]
    with torch.no_grad():
        torch.testing.assert_close(align.similarity([turned[0]], [turned[1]]), align.similarity([query], [nodes[1]]))
        # Beside data of more classes, which is filled up with nothing.
        both = align.similarity([query, drawn(9, WIDTH, seed=5)], nodes)
        torch.testing.assert_close(both[:1], align.similarity([query], nodes))


def test_comes_back_from_a_file(index, tmp_path):
    made, centres = index
    query = around(centres[:3], 0)
    for aligned in (False, True):
        if aligned:
            made.align([query] * 2, torch.rand(2, 4), steps=2)
        again = Index.load(made.save(tmp_path / "zoo"))
        assert again.names == made.names
        assert again.settings == {"reference": "lite0"}
        assert again.search(*query) == made.search(*query)


def test_what_does_not_fit_is_refused(index, tmp_path):
    made, centres = index
    with pytest.raises(ConfigError, match="features have 2 numbers each, and the probes of this index 6"):
        made.search(torch.rand(4, 2), torch.zeros(4))
    with pytest.raises(ConfigError, match="holds no network"):
        Index(torch.rand(5, 2)).search(torch.rand(4, 2), torch.zeros(4))
    with pytest.raises(ShapeError, match=r"probabilities must be \[P, K\]"):
        made.add("another", torch.rand(3, 2))
    with pytest.raises(ShapeError, match=r"scores must be \[1, 4\]"):
        made.align([around(centres[:3], 0)], torch.rand(2, 4))
    with pytest.raises(ConfigError, match="width"):
        Alignment(4, width=0)
    (made.save(tmp_path / "zoo") / "index.json").write_text(json.dumps({"names": ["a"]}))
    with pytest.raises(DataError, match="holds no index of networks that can be read"):
        Index.load(tmp_path / "zoo")
