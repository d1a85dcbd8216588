"""Separability, and what is wrong in the data."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import cdist
from sklearn.datasets import load_digits

from repertoire.diagnostics import (
    class_overlap,
    hierarchy,
    label_errors,
    macro_std,
    near_duplicates,
    neighbour_votes,
    persistence_separability,
    persistence_times,
    thumbnails,
    tree_lengths,
    weak_subgroups,
)
from repertoire.errors import ConfigError, DataError, ShapeError


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 40), st.integers(1, 4), st.integers(0, 999))
def test_the_tree_is_the_minimum_spanning_one(count, width, seed):
    x = normal(count, width, seed=seed).double()
    expected = np.sort(minimum_spanning_tree(cdist(x, x)).data)
    np.testing.assert_allclose(tree_lengths(x).numpy(), expected, rtol=1e-9)


def test_the_tree_of_more_rows_than_are_dropped_at_once():
    x = normal(700, 3).double()
    np.testing.assert_allclose(tree_lengths(x).numpy(), np.sort(minimum_spanning_tree(cdist(x, x)).data), rtol=1e-9)


def test_clumps_lower_the_score():
    labels = torch.arange(400) % 4
    scores = [persistence_separability(normal(400, 8) + far * torch.eye(8)[labels]) for far in (0, 5, 20)]
    assert scores[0] > scores[1] > scores[2]
    times = persistence_times(normal(50, 3), most=20)
    assert len(times) == 19
    assert float(times[-1]) == 1
    assert persistence_separability(torch.ones(9, 3)) == 0.0
    assert math.isnan(persistence_separability(torch.ones(1, 3)))
    with pytest.raises(ConfigError, match="most"):
        persistence_times(normal(5, 2), most=1)


def test_votes_are_those_of_the_nearest():
    x, labels = normal(30, 4), torch.arange(30) % 3
    cosine = torch.nn.functional.cosine_similarity(x[:, None], x[None], dim=2).double()
    found = neighbour_votes(x, labels, 3, neighbours=5)
    for i in range(30):
        near = sorted((j for j in range(30) if j != i), key=lambda j: -cosine[i, j])[:5]
        votes = [sum(math.exp(cosine[i, j] / 0.07) for j in near if labels[j] == k) for k in range(3)]
        assert found[i].tolist() == pytest.approx([v / sum(votes) for v in votes], rel=1e-4)
    assert neighbour_votes(x[:1], labels[:1], 3).tolist() == [[1 / 3] * 3]
    assert neighbour_votes(x, labels, 3, queries=x[:2], neighbours=1)[1].tolist() == [0, 1, 0]
    with pytest.raises(ShapeError, match="one length"):
        neighbour_votes(x, labels[1:], 3)


def test_classes_that_touch_are_found():
    labels = torch.arange(300) % 3 * 10
    centres = torch.tensor([[9.0, 0, 0], [0, 9, 0], [0, 8, 0]])
    found = class_overlap(normal(300, 3) + centres[labels // 10], labels)
    assert found.pairs(1)[0][:2] == (1, 2)
    assert found.shares[0, 0] > 0.95
    assert 0.5 < found.accuracy < 0.9
    torch.testing.assert_close(found.shares.sum(1), torch.ones(3).double())
    with pytest.raises(ShapeError, match="one length"):
        class_overlap(normal(9, 2), torch.zeros(8).long())
    with pytest.raises(ShapeError, match="one length"):
        class_overlap(normal(9, 2), torch.zeros(10).long())
    assert class_overlap(normal(1, 2), torch.zeros(1).long()).purity == 1.0


def test_wrong_labels_are_found_and_their_share_is_estimated():
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(600) % 3
    x = normal(600, 5) + 6 * torch.eye(5)[truth]
    flipped = torch.rand(600, generator=generator) < 0.1
    labels = torch.where(flipped, (truth + 1) % 3, truth)
    found = label_errors(neighbour_votes(x, labels, 3), labels)
    hit = flipped[found.index]
    assert hit.float().mean() > 0.9
    assert hit.sum() > 0.8 * flipped.sum()
    assert (found.suggested == truth[found.index])[hit].all()
    assert found.share == pytest.approx(float(flipped.float().mean()), abs=0.03)
    assert found.margin.tolist() == sorted(found.margin.tolist(), reverse=True)
    assert float(found.noise.sum()) == pytest.approx(1)


def by_hand(p, labels, filter):
    """The other filters, sample by sample, from the joint distribution."""
    joint = label_errors(p, labels).noise.numpy()
    p, labels = p.double().numpy(), labels.numpy()
    count, classes = p.shape
    own = p[np.arange(count), labels]
    pair, each = set(), set()
    for label in range(classes):
        rows = [i for i in range(count) if labels[i] == label]
        wanted = [round(count * joint[label, other]) if other != label else 0 for other in range(classes)]
        each |= set(sorted(rows, key=lambda i: own[i])[: sum(wanted)])
        for other in range(classes):
            pair |= set(sorted(rows, key=lambda i: own[i] - p[i, other])[: wanted[other]])
    likely = {i for i in range(count) if p[i].max() > own[i]}
    return {"noise-rate": pair & likely, "class": each & likely, "both": pair & each & likely}[filter]


@pytest.mark.parametrize("filter", ["noise-rate", "class", "both"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_other_filters_are_theirs_by_hand(filter, seed):
    p = (2 * normal(120, 4, seed=seed)).softmax(1)
    labels = torch.where(normal(120, seed=seed + 9) > 0.5, p.argmin(1), p.argmax(1))
    found = label_errors(p, labels, filter=filter)
    assert set(found.index.tolist()) == by_hand(p, labels, filter)
    assert len(found.index) > 0
    assert (found.margin > 0).all()
    assert (found.suggested != labels[found.index]).all()


def test_every_sample_has_a_confidence():
    p = torch.tensor([[0.9, 0.1, 0.0], [0.3, 0.3, 0.4], [0.2, 0.7, 0.1]])
    found = label_errors(p, np.array([0, 0, 2]), filter="self-confidence")
    assert found.confidence.tolist() == pytest.approx([0.9, 0.3, 0.1])
    assert found.normalised_margin.tolist() == pytest.approx([0.9, 0.45, 0.2])
    assert label_errors(torch.eye(3), torch.arange(3)).share == 0
    with pytest.raises(ConfigError, match="filter must be one of confident"):
        label_errors(p, torch.tensor([0, 0, 2]), filter="best")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[math.nan, 1.0], [0.5, 0.5]], "must be finite, found nan or infinity in row 0"),
        ([[0.5, 0.5], [2.0, 1.0]], "row 1 sums to 3"),
        ([[1.5, -0.5], [0.5, 0.5]], "row 0 sums to 1 and has a least value of -0.5"),
    ],
)
def test_probabilities_that_are_none_are_refused(rows, message):
    with pytest.raises(DataError, match=message):
        label_errors(torch.tensor(rows), torch.tensor([0, 1]))
    with pytest.raises(ShapeError, match="labels must be integers"):
        label_errors(torch.full((2, 2), 0.5), torch.tensor([0.0, 1.0]))


def test_a_tie_between_classes_counts_its_share():
    """Each sample has one neighbour of each class: half of the draws are right."""
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    assert class_overlap(x, torch.tensor([0, 0, 1, 1]), neighbours=3).accuracy == 0
    turn = torch.linspace(0, 1.5, 6)
    circle = torch.stack([turn.cos(), turn.sin()], 1)
    assert class_overlap(circle, torch.tensor([0, 1, 0, 1, 0, 1]), neighbours=2).accuracy == pytest.approx(1 / 6)


def test_label_errors_of_odd_sets():
    assert len(label_errors(torch.full((4, 1), 1.0), torch.zeros(4).long()).index) == 0
    assert len(label_errors(torch.zeros(0, 3), torch.zeros(0).long()).index) == 0
    p = torch.tensor([[0.6, 0.3, 0.1]] * 3)  # nobody is labelled 2, and 2 is never suggested
    assert 2 not in label_errors(p, torch.tensor([0, 1, 1])).suggested
    with pytest.raises(ShapeError, match=r"0\.\.2"):
        label_errors(p, torch.tensor([0, 1, 3]))
    with pytest.raises(ShapeError, match=r"\[N, K\]"):
        label_errors(p, torch.tensor([0, 1]))


def test_copies_are_found_across_sets_and_within_one():
    x, y = normal(20, 30), normal(50, 30, seed=1)
    y[7] = 3 * x[4] + 0.01 * normal(30, seed=2)
    found = near_duplicates(x, y)
    assert (found.index.tolist(), found.match.tolist()) == ([4], [7])
    assert len(near_duplicates(x).index) == 0
    again = near_duplicates(torch.cat([x, x[:2]]))
    assert sorted(zip(again.index.tolist(), again.match.tolist(), strict=True)) == [(20, 0), (21, 1)]
    four = near_duplicates(torch.cat([x, x[3:4], x[3:4], x[3:4]]))
    assert sorted(four.index.tolist()) == [20, 21, 22], "of four copies all but the first"
    assert all(match < index for index, match in zip(four.index.tolist(), four.match.tolist(), strict=True))
    assert len(near_duplicates(x[:0], y).index) == 0
    with pytest.raises(ConfigError, match="threshold"):
        near_duplicates(x, y, threshold=1.5)
    with pytest.raises(ShapeError, match="one width"):
        near_duplicates(x, y[:, 1:])


def pictures(count: int, seed: int = 0) -> torch.Tensor:
    """Smooth pictures in colour, uint8 `[N, 32, 32, 3]`."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 6, 6, generator=generator)
    large = torch.nn.functional.interpolate(coarse, 32, mode="bicubic").clamp(0, 1)
    return (255 * (0.2 * large + 0.8 * large.mean(1, keepdim=True))).round().to(torch.uint8).permute(0, 2, 3, 1)


def disturbed(images: torch.Tensor, how: str) -> torch.Tensor:
    def each(image):
        picture = Image.fromarray(image.numpy())
        if how == "compressed":
            buffer = io.BytesIO()
            picture.save(buffer, "JPEG", quality=50)
            picture = Image.open(buffer)
        elif how == "resized":
            picture = picture.resize((24, 24), Image.Resampling.BILINEAR).resize((32, 32), Image.Resampling.BILINEAR)
        elif how == "brighter":
            picture = picture.point(lambda value: min(255, int(1.3 * value)))
        else:
            picture = picture.convert("L").convert("RGB")
        return torch.from_numpy(np.array(picture))

    return torch.stack([each(image) for image in images])


@pytest.mark.parametrize("how", ["compressed", "resized", "brighter", "grey"])
def test_copies_of_pictures_are_found_and_others_are_not(how):
    images, others = pictures(200), pictures(100, seed=1)
    x = thumbnails(torch.cat([disturbed(images[:40], how), others]))
    found = near_duplicates(x, thumbnails(images))
    assert sorted(found.index.tolist()) == list(range(40))
    assert found.match[found.index.argsort()].tolist() == list(range(40))
    assert found.threshold == pytest.approx(0.97, abs=0.02)


def test_where_all_samples_are_near_each_other_the_threshold_is_nearer():
    """Digits: among different ones hundreds of pairs are nearer than 0.97, and some nearer than 0.99."""
    images = torch.from_numpy(load_digits().images[:600].astype(np.float32))[:, None]
    x = thumbnails(torch.nn.functional.interpolate(images, 16, mode="bilinear"))
    assert len(near_duplicates(x, threshold=0.97).index) > 100
    found = near_duplicates(x)
    assert found.threshold > 0.99
    assert len(found.index) <= 6
    assert near_duplicates(x[:100] + 0.01 * normal(100, 256), x).index.unique().numel() == 100


def test_blank_pictures_are_copies_of_each_other():
    blank = torch.full((2, 32, 32, 3), 255, dtype=torch.uint8)
    assert near_duplicates(thumbnails(blank)).index.tolist() == [1]
    mixed = torch.cat([pictures(30), blank, torch.zeros(1, 32, 32, 3, dtype=torch.uint8)])
    found = near_duplicates(thumbnails(mixed))
    assert (found.index.tolist(), found.match.tolist()) == ([31, 32], [30, 30])
    across = near_duplicates(thumbnails(mixed[29:31]), thumbnails(mixed[:31]))
    assert sorted(across.match.tolist()) == [29, 30]
    red, blue = (torch.tensor(colour, dtype=torch.uint8).expand(1, 32, 32, 3) for colour in ([200, 0, 0], [0, 0, 200]))
    assert near_duplicates(thumbnails(torch.cat([red, blue, red]))).index.tolist() == [2]


def test_thumbnails_see_the_same_picture_in_another_size_and_brightness():
    picture = torch.nn.functional.interpolate(torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)), 64)
    bright = (0.5 * picture + 0.3).repeat_interleave(2, 2).repeat_interleave(2, 3)
    a, b = thumbnails(picture), thumbnails(bright)
    assert float(torch.nn.functional.cosine_similarity(a, b)) > 0.999
    assert thumbnails((255 * picture).to(torch.uint8).permute(0, 2, 3, 1)).shape == (1, 4 * 256)
    with pytest.raises(ShapeError, match="images"):
        thumbnails(picture[0])


@pytest.mark.parametrize("method", ["ward", "bisecting"])
@pytest.mark.parametrize("x", [normal(200, 4), torch.zeros(200, 4), normal(1, 4), normal(2, 1)])
def test_the_tree_is_a_tree(method, x):
    tree = hierarchy(x, leaf=5, method=method)
    assert sorted(tree.order.tolist()) == list(range(len(x)))
    assert (tree.start[0], tree.end[0], tree.parent[0]) == (0, len(x), -1)
    for node in range(1, len(tree.start)):
        parent = tree.parent[node]
        assert parent < node
        assert tree.start[parent] <= tree.start[node] < tree.end[node] <= tree.end[parent]
        assert tree.depth[node] == tree.depth[parent] + 1
    children = np.bincount(tree.parent[1:], minlength=len(tree.start))
    assert set(children.tolist()) <= {0, 2}
    assert (tree.sizes[children == 0] <= 5).all()
    held = np.zeros(len(tree.start), dtype=int)
    np.add.at(held, tree.parent[1:], tree.sizes[1:])
    assert (held[children == 2] == tree.sizes[children == 2]).all()


@pytest.mark.parametrize("method", ["ward", "bisecting"])
def test_a_group_that_the_model_gets_wrong_is_found(method):
    x = torch.cat([normal(300, 4), normal(30, 4, seed=1) + torch.tensor([20.0, 0, 0, 0])])
    wrong = np.arange(330) >= 300
    wrong[:10] = True
    (found,) = weak_subgroups(hierarchy(x, method=method), wrong, most=1)
    assert found.error > 0.9
    assert (found.members >= 300).mean() > 0.9
    assert found.p_value < 1e-6
    assert weak_subgroups(hierarchy(x, method=method), np.zeros(330, bool)) == []
    with pytest.raises(ShapeError, match="one entry"):
        weak_subgroups(hierarchy(x, method=method), wrong[1:])


def test_even_errors_are_no_subgroup_and_neither_is_one_error():
    assert weak_subgroups(hierarchy(normal(400, 4)), np.arange(400) == 7) == []
    wrong = np.random.default_rng(0).random(400) < 0.2
    assert weak_subgroups(hierarchy(normal(400, 4)), wrong) == []
    for options in ({"leaf": 0}, {"method": "ward2"}):
        with pytest.raises(ConfigError):
            hierarchy(normal(4, 2), **options)
    with pytest.raises(ShapeError, match="at least one row"):
        hierarchy(torch.zeros(0, 2))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 3), st.integers(1, 3), st.integers(0, 999))
def test_macro_std(count, classes, parts, seed):
    rng = np.random.default_rng(seed)
    right, labels, groups = rng.random(count) < 0.6, rng.integers(classes, size=count), rng.integers(parts, size=count)
    total = []
    for k in set(labels.tolist()):
        members = [(right[(labels == k) & (groups == g)]) for g in set(groups[labels == k].tolist())]
        n = sum(map(len, members))
        mean = sum(len(m) / n * m.mean() for m in members)
        total.append(math.sqrt(sum(len(m) / n * (m.mean() - mean) ** 2 for m in members)))
    assert macro_std(right, labels, groups) == pytest.approx(sum(total) / len(total))
    assert math.isnan(macro_std(right[:0], labels[:0], groups[:0]))
    with pytest.raises(ShapeError, match="one length"):
        macro_std(right, labels, groups[:-1])
