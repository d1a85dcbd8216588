"""What a loss on views remembers is the same on all ranks, and made of the samples of all of them."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest


@pytest.mark.slow
def test_all_ranks_remember_the_samples_of_all(tmp_path):
    script = tmp_path / "ranks.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys
            import torch
            from repertoire.losses import IndividualTemperatures, TiCo

            rank = int(sys.argv[1])
            torch.distributed.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
            views = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(rank))
            tico, temperatures = TiCo(dimensions=3), IndividualTemperatures(9)
            tico(*views)
            tico.after_update()
            z = torch.nn.functional.normalize(
                torch.cat([torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(r))[0] for r in range(2)])
            )
            torch.testing.assert_close(tico.covariance, 0.1 * z.T @ z / 8)
            temperatures(*views, index=torch.arange(4) + 4 * rank)
            temperatures.after_update()
            assert temperatures.log_means[:8].isfinite().all(), temperatures.log_means
            assert temperatures.log_means[8] == -torch.inf
            for state in (tico.covariance, temperatures.temperatures, temperatures.log_means, temperatures.directions):
                first = state.clone()
                torch.distributed.broadcast(first, 0)
                assert torch.equal(first, state)
            torch.distributed.destroy_process_group()
            """
        )
    )
    command = [sys.executable, str(script)]
    ranks = [subprocess.Popen([*command, str(rank), str(tmp_path / "store")]) for rank in range(2)]
    assert [rank.wait(timeout=240) for rank in ranks] == [0, 0]
