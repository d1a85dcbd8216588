from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import repertoire
from repertoire import losses
from repertoire.backbones import Identity
from repertoire.data import Batch, FeatureSet
from repertoire.errors import ConfigError
from repertoire.heads import BatchAttention, Linear
from repertoire.methods import Classifier, Normalize, Supervised
from repertoire.rules import Backprop
from repertoire.train import outputs
from repertoire.train._outputs import mixed_order


def made(**options: object) -> BatchAttention:
    torch.manual_seed(0)
    return BatchAttention(6, 3, **options).double()


def rows(count: int = 5) -> torch.Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def ratio(a: list[float], b: list[float]) -> float:
    """The peak signal-to-noise ratio of two vectors, as a share of 100 decibels."""
    error = sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / len(a)
    peak = max(max(a) - min(a), max(b) - min(b))
    return min(100.0, 10 * math.log10(peak**2 / max(error, 1e-12))) / 100


@pytest.mark.parametrize("position", ["relationship", "none"])
def test_agrees_with_the_formula(position: str):
    head, x = made(position=position), rows()
    if head.position is not None:
        with torch.no_grad():
            head.position.fill_(2.5)
    q, k, v = (part(x).tolist() for part in (head.query, head.key, head.value))
    expected = []
    for i in range(5):
        scores = [sum(a * b for a, b in zip(q[i], k[j], strict=True)) / math.sqrt(6) for j in range(5)]
        if position == "relationship":
            scores = [s + 2.5 * ratio(x[i].tolist(), x[j].tolist()) for j, s in enumerate(scores)]
        weights = [math.exp(s) for s in scores]
        seen = [sum(w * v[j][c] for j, w in enumerate(weights)) / sum(weights) for c in range(6)]
        expected.append([float(x[i, c]) + seen[c] for c in range(6)])
    torch.testing.assert_close(
        head(x), head.classifier(torch.tensor(expected, dtype=torch.float64)), rtol=1e-9, atol=1e-9
    )


def test_a_batch_of_one_is_itself_and_its_value():
    head, x = made(), rows(1)
    torch.testing.assert_close(head(x), head.classifier(x + head.value(x)))


def test_who_resembles_a_sample_is_looked_at_more():
    head = made()
    with torch.no_grad():
        for part in (head.query, head.key):
            part.weight.zero_()
            part.bias.zero_()
    x = rows(3)
    x[1] = x[0] + 1e-3
    weights = head.attention(x)
    assert weights[0, 0] > weights[0, 1] > weights[0, 2]


def test_a_batch_of_one_class_answers_otherwise_than_a_mixed_one():
    """What the docstring warns of: a head that was trained does better where its neighbours are of its class."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(3, 6, generator=generator)
    y = torch.arange(600) % 3
    x = means[y] + 1.5 * torch.randn(600, 6, generator=generator)
    torch.manual_seed(0)
    head = BatchAttention(6, 3)
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-3)
    for step in range(300):
        part = torch.randperm(600, generator=generator)[:60]
        part = part[y[part] == step % 3] if step % 2 else part  # some batches are sorted, as in a folder
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(head(x[part]), y[part]).backward()
        optimizer.step()
    with torch.no_grad():
        mixed = (head(x).argmax(1) == y).float().mean()
        alone = torch.cat([(head(x[y == c]).argmax(1) == c).float() for c in range(3)]).mean()
    assert alone > mixed + 0.05


def test_a_batch_is_not_split():
    model = Classifier(Normalize([0.0] * 6, [1.0] * 6), Identity(6), BatchAttention(6, 3))
    method = Supervised(model, losses.CrossEntropy())
    assert method.needs.within_rank
    with pytest.raises(ConfigError, match="accumulate"):
        Backprop().check(method, accumulate=2)
    assert method.step(Batch((torch.randn(4, 6),), torch.arange(4) % 3, torch.arange(4))).loss.isfinite()


def test_an_evaluation_does_not_know_the_order_of_the_classes():
    """Of a folder that is read class by class, a batch would hold one class, and the head would see it."""
    torch.manual_seed(0)
    model = Classifier(Normalize([0.0] * 6, [1.0] * 6), Identity(6), BatchAttention(6, 3))
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(90, 6)).astype(np.float32), np.arange(90) // 30
    keys = generator.integers(2**63, size=90).astype(np.uint64)
    whole = FeatureSet(x, y, [str(i) for i in range(90)], ("a", "b", "c"), keys)
    found = outputs(model, whole, batch_size=30)
    np.testing.assert_array_equal(found.labels, y)
    np.testing.assert_array_equal(found.embeddings, x)
    # A batch of the evaluation holds samples of every class, and answers come back in the order of the set.
    batches = np.split(np.argsort(keys), 3)
    assert all(len(np.unique(y[rows])) == 3 for rows in batches)
    with torch.no_grad():
        for rows in batches:
            expected = model.head.eval()(torch.from_numpy(x[rows])).numpy()
            np.testing.assert_allclose(found.logits[rows], expected, rtol=1e-5, atol=1e-6)
    for order in (np.arange(90)[::-1].copy(), generator.permutation(90)):
        again = outputs(model, whole.subset(order), batch_size=30)
        np.testing.assert_allclose(again.logits, found.logits[order], rtol=1e-5, atol=1e-6)
    # What looks at each sample by itself is read as it lies, which is quicker.
    assert mixed_order(model, keys) is not None
    assert mixed_order(Classifier(Normalize([0.0] * 6, [1.0] * 6), Identity(6), Linear(6, 3)), keys) is None


@pytest.mark.parametrize("tta", [False, True])
def test_a_list_of_files_is_evaluated_in_another_order_than_it_is_given_in(tta: bool, tmp_path: Path):
    """Of files that are not read yet nothing is known but their places; their order is one of chance."""
    rng = np.random.default_rng(0)
    images = [tmp_path / "data" / name / f"{i}.png" for name in "abc" for i in range(12)]
    for number, path in enumerate(images):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 120, (8, 8, 3), dtype=np.uint8) + np.uint8(5 * (number // 12))).save(path)
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(f"{path},{path.parent.name}\n" for path in images))
    options = {"backbone": "convnet:width=8,depth=2", "size": 8, "epochs": 1, "batch_size": 8, "device": "cpu"}
    run = repertoire.fit(tmp_path / "data", head="batch-attention", out=tmp_path / "run", **options)
    found, alone = (run.outputs(tmp_path / "list.csv", batch_size=size, tta=tta) for size in (12, 1))
    np.testing.assert_array_equal(found.labels, np.arange(36) // 12)
    order = np.argsort(np.random.default_rng(0).permutation(36), kind="stable")
    said = [run.predict([images[i] for i in rows], tta=tta) for rows in np.split(order, 3)]
    asked = np.concatenate(said)[np.argsort(order)]
    np.testing.assert_allclose(softmax(found.logits), asked, rtol=1e-4, atol=1e-5)
    assert not np.allclose(softmax(alone.logits), asked, rtol=1e-4, atol=1e-5)
    if not tta:
        np.testing.assert_allclose(found.embeddings, run.embed(images), rtol=1e-4, atol=1e-5)


def softmax(logits: np.ndarray) -> np.ndarray:
    return torch.from_numpy(logits).softmax(1).numpy()
