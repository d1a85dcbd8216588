"""Which images are shown, and how they are packed."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from repertoire import backbones, heads
from repertoire.data import ImageSet
from repertoire.explain import Explainer
from repertoire.methods import Classifier, Normalize
from repertoire.report._samples import AT_ONCE, LARGEST, choose, data_uri, pictures
from repertoire.report._tables import confusion_grid, most_confused


def test_choose_finds_sure_mistakes_and_unsure_hits() -> None:
    first = np.array([0.9, 0.6, 0.2, 0.45, 0.99, 0.55])
    labels = np.array([1, 0, 0, 1, -1, 0])
    mistakes, hits = choose(np.stack([first, 1 - first], 1), labels)
    assert mistakes.tolist() == [0, 2]
    assert hits.tolist() == [3, 5, 1] or hits.tolist() == [5, 3, 1]
    assert [len(part) for part in choose(np.stack([first, 1 - first], 1), labels, most=1)] == [1, 1]


def test_choose_of_nothing() -> None:
    mistakes, hits = choose(np.zeros((0, 3)), np.zeros(0, np.int64))
    assert len(mistakes) == len(hits) == 0


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (64, 64, 3), (5, 7, 3)])
def test_small_images_are_kept_exactly(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    head, data = data_uri(image).split(",")
    assert head == "data:image/png;base64"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), image.squeeze())


def test_large_images_are_reduced() -> None:
    head, data = data_uri(np.full((600, 300, 3), 200, np.uint8)).split(",")
    assert head == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (LARGEST // 2, LARGEST)


def test_confusion_is_tinted_by_shares_of_the_row() -> None:
    grid = confusion_grid([[3, 1, 0], [0, 0, 0], [0, 0, 5]], list("abc"))
    assert [[cell.tint for cell in row] for row in grid.rows] == [[0.75, 0.5, 0.0], [0.0] * 3, [0.0, 0.0, 1.0]]
    assert [[cell.right for cell in row] for row in grid.rows] == np.eye(3, dtype=bool).tolist()


def test_most_confused_leaves_out_the_diagonal_and_zeros() -> None:
    pairs = most_confused([[9, 1, 0], [4, 4, 0], [0, 0, 5]], list("abc"), 10)
    assert [(p.true, p.predicted, p.count, p.share) for p in pairs] == [("b", "a", 4, 0.5), ("a", "b", 1, 0.1)]
    assert len(most_confused([[0, 5], [3, 0]], list("ab"), 1)) == 1


class Noted(Explainer):
    """Gives flat maps, and notes the classes that it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[int] | None] = []

    def _explain(self, model, inputs, targets):
        self.asked.append(None if targets is None else targets.tolist())
        return inputs.new_ones(1, len(inputs), *inputs.shape[2:])


def test_maps_are_of_the_classes_that_the_page_names():
    count = AT_ONCE + 3
    pixels = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    images = ImageSet(
        pixels, np.zeros(count, np.int64), [f"{i}.png" for i in range(count)], ("a", "b"), np.arange(count)
    )
    model = Classifier(
        Normalize([0.5] * 3, [0.25] * 3), backbones.ResNet(8, in_channels=3, width=4), heads.Linear(16, 2)
    )
    noted, named = Noted(), np.arange(count) % 2
    found = pictures(images, np.arange(count), model, {"noted": noted, "again": Noted()}, named)
    assert noted.asked == [named[:AT_ONCE].tolist(), named[AT_ONCE:].tolist()]
    assert [list(picture.overlays) for picture in found] == [["noted", "again"]] * count
    assert len({picture.image for picture in found}) == count == len({picture.overlays["noted"] for picture in found})
    pictures(images, [0], model, {"noted": noted})
    assert noted.asked[2:] == [None]
    assert pictures(images, [0], model, {})[0].overlays == {}
