from __future__ import annotations

import pytest
import torch

from repertoire.errors import ConfigError, ShapeError
from repertoire.select import feature_mapping, label_mapping


def test_source_parts_are_ranked_by_use():
    logits = torch.eye(5)[[3, 3, 3, 1, 1, 4]]
    found = label_mapping(logits)
    assert found.order[:3].tolist() == [3, 1, 4]
    assert found.counts.tolist() == [0, 2, 0, 3, 1]
    assert found.keep(0.4).tolist() == [1, 3]
    assert feature_mapping(logits, torch.eye(5)).counts.tolist() == found.counts.tolist()
    with pytest.raises(ConfigError, match="share"):
        found.keep(0.0)
    with pytest.raises(ShapeError, match="logits"):
        label_mapping(torch.zeros(3))
    with pytest.raises(ShapeError, match="one width"):
        feature_mapping(logits, torch.eye(4))
