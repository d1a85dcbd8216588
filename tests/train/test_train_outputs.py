"""In which order samples go through a network whose answers depend on the others in a batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import repertoire
from repertoire.backbones import Identity
from repertoire.data import FeatureSet
from repertoire.heads import BatchAttention, Linear
from repertoire.methods import Classifier, Normalize
from repertoire.train import outputs
from repertoire.train._outputs import mixed_order


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
