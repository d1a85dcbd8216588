from __future__ import annotations

import pytest
import torch

from repertoire.ops import as_maps


@pytest.mark.parametrize("extra", [0, 1, 2, 5, 8])
@pytest.mark.parametrize("grid", [(4, 4), (3, 6), (14, 14)])
def test_tokens_become_maps_without_those_that_stand_for_no_place(extra, grid):
    h, w = grid
    maps = torch.randn(2, 5, h, w)
    tokens = torch.cat([torch.full((2, extra, 5), 9.0), maps.flatten(2).transpose(1, 2)], 1)
    torch.testing.assert_close(as_maps(tokens, (8 * h, 8 * w)), maps)


def test_channels_last_become_first_and_the_rest_stays():
    maps = torch.randn(2, 5, 3, 6)
    torch.testing.assert_close(as_maps(maps.movedim(1, 3), (24, 48)), maps)
    for other in (maps, torch.zeros(2, 7), torch.zeros(2, 1, 4)):
        assert as_maps(other, (24, 48)) is other
