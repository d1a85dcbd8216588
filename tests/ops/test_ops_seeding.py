import pytest
import torch

from repertoire.ops import seed_torch


def test_the_numbers_are_those_of_manual_seed() -> None:
    for seed in (0, 7, 2**63 + 5, 2**64 - 1):
        torch.manual_seed(seed)
        expected = torch.rand(5), torch.randperm(9)
        seed_torch(seed, torch.device("cpu"))
        assert torch.equal(torch.rand(5), expected[0])
        assert torch.equal(torch.randperm(9), expected[1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_the_numbers_are_those_of_manual_seed() -> None:
    device = torch.device("cuda")
    torch.manual_seed(3)
    expected = torch.rand(5), torch.rand(5, device=device)
    seed_torch(3, device)
    assert torch.equal(torch.rand(5), expected[0])
    assert torch.equal(torch.rand(5, device=device), expected[1])
