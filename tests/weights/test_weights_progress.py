"""Long merges that are stopped, and go on to the same bits."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from repertoire.data import Batch
from repertoire.weights import Progress, Stored, _progress, anisotropic, fisher, permute_least_squares, regmean, twin


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 1), nn.ReLU(), nn.Flatten()
        )
        self.head = nn.Linear(24, 3)

    def forward(self, x):
        return self.head(self.backbone(x))


def network(state, of=0):
    net = Net()
    net.load_state_dict(dict(state))
    return net.eval()


def weights(seed):
    torch.manual_seed(seed)
    net = Net()
    net(torch.rand(20, 2, 4, 4))
    return {name: value.clone() for name, value in net.state_dict().items()}


IMAGES = torch.rand(150, 2, 4, 4, generator=torch.Generator().manual_seed(9))
TARGETS = torch.arange(150) % 3
BASE, STATES = weights(0), [weights(1), weights(2)]


def batches(of=None):
    """Five batches; of each run its own half."""
    chosen = torch.arange(150) if of is None else torch.arange(of, 150, 2)
    for rows in chosen.split(30):
        yield Batch((IMAGES[rows],), TARGETS[rows], rows)


OPERATORS = {
    "anisotropic": lambda progress: anisotropic(STATES, BASE, network, batches, steps=7, images=8, progress=progress),
    "anisotropic, entropy": lambda progress: anisotropic(
        STATES, BASE, network, batches, steps=7, images=8, rate=0.05, objective="entropy", progress=progress
    ),
    "fisher": lambda progress: fisher(STATES, network, batches, samples=20, progress=progress),
    "regmean": lambda progress: regmean(STATES, network, batches, progress=progress),
    "twin": lambda progress: twin(STATES, BASE, network, batches, rank=2, samples=40, progress=progress),
    "permute-least-squares": lambda progress: permute_least_squares(
        STATES, network, batches, samples=150, progress=progress
    ),
}


class Killed(BaseException):
    pass


class Stopping(Progress):
    """Ends its process, as it were, behind the time that it has kept something so often; or while it does."""

    def __init__(self, folder, times, during):
        super().__init__(folder, "key")
        self.times, self.during = times, during

    def save(self, name, tensors, told=None):
        self.times -= 1
        if self.times == 0 and self.during:
            (self.folder / f".{name}.safetensors.x.tmp").write_bytes(b"half")
            raise Killed
        super().save(name, tensors, told)
        if self.times == 0:
            raise Killed


def same(first, second):
    if isinstance(first, Stored):
        assert first.form == second.form
        first, second = first.tensors, second.tensors
    assert list(first) == list(second)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.mark.parametrize("during", [False, True])
@pytest.mark.parametrize("name", OPERATORS)
def test_whoever_is_stopped_at_any_time_goes_on_to_the_same_bits(name, during, tmp_path, monkeypatch):
    monkeypatch.setattr(_progress, "EVERY", 0.0)
    operator, lines = OPERATORS[name], []
    expected = operator(None)
    stops = 0
    while True:
        folder = tmp_path / str(stops)
        folder.mkdir()
        try:
            same(operator(Stopping(folder, stops + 1, during)), expected)
        except Killed:
            stops += 1
        else:
            break
        begun = sorted(file.name for file in folder.glob("*.safetensors"))
        assert begun or (during and stops == 1)
        progress = Progress(folder, "key", lines.append)
        same(operator(progress), expected)
        progress.clear()
        assert not folder.exists()
    assert stops >= 2
    assert len(lines) == (stops - 1 if during else stops)


def test_what_was_kept_is_not_computed_again(tmp_path):
    """Of two runs whose moments are there already, no sample is looked at."""
    expected = regmean(STATES, network, batches, progress=Progress(tmp_path / "p", "key"))

    def nothing(of=None):
        raise AssertionError("looked at samples")

    same(regmean(STATES, network, nothing, progress=Progress(tmp_path / "p", "key")), expected)


def test_learning_goes_on_in_the_middle(tmp_path, monkeypatch):
    monkeypatch.setattr(_progress, "EVERY", 0.0)
    with pytest.raises(Killed):
        OPERATORS["anisotropic"](Stopping(tmp_path, 4, False))
    kept = Progress(tmp_path, "key").load("factors")
    assert kept.told["step"] == 4
    assert {"coefficients", "before", "adam.exp_avg", "adam.exp_avg_sq", "adam.step"} <= kept.tensors.keys()
    assert "buffer.backbone.1.running_var" in kept.tensors


def test_only_what_belongs_to_the_same_merge_is_taken_up(tmp_path):
    first = Progress(tmp_path / "p", "one")
    first.save("x", {"a": torch.tensor([0.1, float("nan")])}, {"rate": 0.1 + 0.2, "lost": float("inf")})
    kept = Progress(tmp_path / "p", "one").load("x")
    assert kept.told == {"rate": 0.1 + 0.2, "lost": float("inf")}
    assert kept.tensors["a"].isnan().tolist() == [False, True]
    assert first.holds()
    other = Progress(tmp_path / "p", "two")
    assert other.load("x") is None
    assert not other.holds()
    assert first.load("y") is None
    file = tmp_path / "p" / "x.safetensors"
    file.write_bytes(file.read_bytes()[:-3])
    assert first.load("x") is None
    assert not first.holds()


def test_nothing_is_kept_nowhere_and_what_others_put_there_stays(tmp_path):
    nowhere = Progress()
    nowhere.save("x", {"a": torch.ones(1)})
    assert nowhere.load("x") is None
    assert not nowhere.due()
    assert not nowhere.holds()
    nowhere.clear()
    progress = Progress(tmp_path / "p", "key")
    progress.save("x", {"a": torch.ones(1)})
    (tmp_path / "p" / "mine.txt").write_text("mine")
    progress.clear()
    assert [file.name for file in (tmp_path / "p").iterdir()] == ["mine.txt"]
