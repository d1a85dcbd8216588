"""Metrics of maps, against loops over pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from repertoire.errors import DataError
from repertoire.tasks import Maps, MapTally, Outputs, tally_maps


def outputs(tally: MapTally | None) -> Outputs:
    rows = np.zeros((1, 2), np.float32)
    return Outputs(rows, rows, rows, tally=tally)


def test_metrics_are_those_of_a_loop_over_pixels():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 5, 4, 7, generator=generator)
    maps = torch.randint(-1, 3, (6, 4, 7), generator=generator)
    tally = MapTally.joined([tally_maps(logits[:2], maps[:2], 4), tally_maps(logits[2:], maps[2:], 4)])
    found = Maps(tuple("abcd")).score(outputs(tally))
    said = logits[:, :4].argmax(1)
    log_probabilities = logits[:, :4].double().log_softmax(1)
    ious, dices, nll, right, count = [], [], 0.0, 0, 0
    for k in range(4):
        hits = both = either = 0
        for i in range(6):
            for y in range(4):
                for x in range(7):
                    if maps[i, y, x] < 0:
                        continue
                    own, given = int(maps[i, y, x]) == k, int(said[i, y, x]) == k
                    hits, both, either = hits + (own and given), both + own + given, either + (own or given)
                    if own:
                        nll -= float(log_probabilities[i, k, y, x])
                        right, count = right + given, count + 1
        ious.append(hits / either)
        dices.append(2 * hits / both)
    assert [row["iou"] for row in found["per_region"]] == pytest.approx(ious)
    assert found["miou"] == pytest.approx(np.mean(ious))
    assert found["mean_dice"] == pytest.approx(np.mean(dices))
    assert found["pixel_accuracy"] == pytest.approx(right / count)
    assert found["nll"] == pytest.approx(nll / count, rel=1e-5)
    assert found["pixels"] == count == np.sum(found["confusion"])
    low, high = found["miou_interval"]
    assert low < found["miou"] < high


def test_absent_classes_and_images_without_a_class_do_not_count():
    logits = torch.zeros(2, 3, 2, 2)
    logits[:, 0] = 1
    maps = torch.tensor([[[0, 0], [0, -1]], [[-1, -1], [-1, -1]]])
    found = Maps(("a", "b", "c")).score(outputs(tally_maps(logits, maps)))
    assert found["samples"] == 1
    assert found["miou"] == found["pixel_accuracy"] == 1.0
    assert found["per_region"][1]["iou"] is None
    assert found["miou_interval"] == [1.0, 1.0]
    assert Maps(("a", "b", "c")).score(outputs(tally_maps(logits, maps.fill_(-1)))) == {"samples": 0}


def test_outputs_of_another_kind_are_refused():
    with pytest.raises(DataError, match="no tally"):
        Maps(("a", "b")).score(outputs(None))
