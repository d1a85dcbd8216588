"""Classes by their distances to others, and tables that users write."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import shortest_path

from repertoire.errors import DataError, ShapeError
from repertoire.zeroshot import (
    expected_squares,
    frechet_mean,
    next_class,
    reachable,
    read_attributes,
    read_class_distances,
)


def tree(count: int, seed: int) -> tuple[np.ndarray, list[int]]:
    """Distances in a random tree, and the parent of each node but the first."""
    generator = np.random.default_rng(seed)
    parents = [int(generator.integers(0, node)) for node in range(1, count)]
    graph = coo_matrix((np.ones(count - 1), (range(1, count), parents)), shape=(count, count))
    return shortest_path(graph, directed=False), parents


def test_the_mean_is_the_nearest_answer_whatever_the_tile():
    generator = np.random.default_rng(0)
    p, d = generator.dirichlet(np.ones(4), 30), generator.random((25, 4))
    energy = [[sum(p[n, i] * d[y, i] ** 2 for i in range(4)) for y in range(25)] for n in range(30)]
    expected = [min(range(25), key=row.__getitem__) for row in energy]
    np.testing.assert_allclose(expected_squares(p, d), energy)
    for tile in (1, 7, 25, 100):
        assert frechet_mean(p, d, tile=tile).tolist() == expected


def test_a_sure_model_names_what_it_is_sure_of():
    d, _ = tree(9, 3)
    np.testing.assert_array_equal(frechet_mean(np.eye(9), d), np.arange(9))
    # Equally far answers: the first.
    assert frechet_mean([[1.0]], [[2.0], [1.0], [1.0]]).tolist() == [1]


@settings(max_examples=15, deadline=None)
@given(st.integers(3, 9), st.integers(1, 4), st.integers(0, 999))
def test_in_a_tree_what_lies_between_known_classes_is_reachable(count, known, seed):
    d, _ = tree(count, seed)
    observed = np.random.default_rng(seed).permutation(count)[:known]
    between = [any(d[i, y] + d[y, j] == d[i, j] for i in observed for j in observed) for y in range(count)]
    assert reachable(d, observed).tolist() == between


def test_reachable_says_what_some_probabilities_name():
    """Points in the plane, of which no rule of paths says anything: probabilities on a fine grid say what is named."""
    generator = np.random.default_rng(4)
    points = generator.random((12, 2))
    d = np.linalg.norm(points[:, None] - points, axis=2)
    observed = [0, 1, 2]
    grid = np.array([(i, j, 60 - i - j) for i, j in itertools.product(range(61), repeat=2) if i + j <= 60]) / 60
    named = np.isin(np.arange(12), frechet_mean(grid, d[:, observed]))
    found = reachable(d, observed)
    assert (found >= named).all()
    assert found.sum() - named.sum() <= 1, "the grid misses a cell smaller than its step at most"
    assert 3 < found.sum() < 12


def test_the_next_class_is_that_of_an_exhaustive_search():
    for seed in range(3):
        d, _ = tree(8, seed)
        observed = [1, 2]
        best = [
            len(
                {
                    y
                    for y in range(8)
                    for i, j in itertools.product([*observed, c], repeat=2)
                    if d[i, y] + d[y, j] == d[i, j]
                }
            )
            if c not in observed
            else -1
            for c in range(8)
        ]
        assert next_class(d, observed) == best.index(max(best))
    with pytest.raises(ShapeError, match="all 8 classes are known"):
        next_class(d, range(8))


def test_distances_that_are_none_are_refused():
    with pytest.raises(ShapeError, match=r"probabilities must be \[N, L\]"):
        frechet_mean([[0.5, 0.5]], [[1.0]])
    with pytest.raises(ShapeError, match="0 or more"):
        frechet_mean([[1.0]], [[-1.0]])
    with pytest.raises(ShapeError, match="positions from 0 to 1"):
        reachable([[0, 1], [1, 0]], [2])


def test_a_tree_and_a_table_are_read(tmp_path):
    file = tmp_path / "tree.csv"
    file.write_text("\ufeffParent,class,length\n,animal,\nanimal,dog,1\nanimal,cat,2\ndog,poodle,0.5\n")
    found = read_class_distances(file)
    answers, values = found.to(["cat", "dog"])
    assert answers == ("dog", "cat", "poodle")  # a dog is known, an animal is no answer
    np.testing.assert_allclose(values, [[3, 0], [0, 3], [3.5, 0.5]])
    file.write_text("class,parent\ndog,animal\ncat,animal\n")  # a root without a row
    assert read_class_distances(file).to(["cat"])[0] == ("dog", "cat")
    file.write_text(",cat,dog\ncat,0,2\nwolf,2.5,0.5\n")
    answers, values = read_class_distances(file).to(["dog", "cat"])
    assert answers == ("cat", "wolf")
    np.testing.assert_allclose(values, [[2, 0], [0.5, 2.5]])
    with pytest.raises(DataError, match=r"no class 'cats', which the run was trained on; did you mean 'cat' there\?"):
        read_class_distances(file).to(["cats"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("class,parent\na,\na,\n", "names the class 'a' twice"),
        ("class,parent\na,\nb,\n", "has 2 roots: 'a' and 'b'"),
        ("class,parent\na,b\nb,a\nc,\n", "own parents"),
        ("class,parent,length\na,\n", "line 2: 2 cells, and the first row has 3"),
        ("class,parent,length\na,,\nb,a,0\n", "not above 0"),
        ("class,parent,length\na,,\nb,a,far\n", "line 3: length is 'far'"),
        ("class,a\nb,-1\n", "distance below 0 in the row of 'b'"),
        ("class,a\nb,x\n", "line 2: a is 'x'; expected a number"),
        ("class\nb\n", "columns class and parent"),
    ],
)
def test_a_table_that_is_none_says_where(tmp_path, text, words):
    file = tmp_path / "tree.csv"
    file.write_text(text)
    with pytest.raises(DataError, match=words):
        read_class_distances(file)


def test_attributes_are_read_and_refused(tmp_path):
    file = tmp_path / "attributes.csv"
    file.write_text("class,striped,weight\nzebra,1,0.4\n\ntiger,1,0.2\n")
    found = read_attributes(file)
    assert (found.classes, found.attributes) == (("zebra", "tiger"), ("striped", "weight"))
    for text, words in (
        ("class\nzebra\n", "one for each attribute"),
        ("class,a,a\nzebra,1,1\n", "attribute 'a' twice"),
        ("class,a\nzebra,yes\n", "line 2: a is 'yes'"),
        ("class,a\n,1\n", "without a name"),
    ):
        file.write_text(text)
        with pytest.raises(DataError, match=words):
            read_attributes(file)
    with pytest.raises(DataError, match="cannot be read"):
        read_attributes(tmp_path / "none.csv")


def test_a_large_tree_takes_no_room_for_all_pairs(tmp_path):
    """30,000 classes below 100 others: all distances would be 7 GB, and those to two classes are a moment's work."""
    count, file = 30_000, tmp_path / "tree.csv"
    lines = [f"g{i},top" for i in range(100)] + [f"c{i},g{i % 100}" for i in range(count)]
    file.write_text("class,parent\n" + "\n".join(lines) + "\n")
    answers, values = read_class_distances(file).to(["c0", "c1"])
    assert len(answers) == count
    place = {name: row for row, name in enumerate(answers)}
    np.testing.assert_array_equal(values[[place["c0"], place["c100"], place["c1"], place["c2"]]],
                                  [[0, 4], [2, 4], [4, 0], [4, 4]])  # fmt: skip
