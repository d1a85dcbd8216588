"""Second moments against patches gathered one by one, and what RegMean makes of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from repertoire.errors import ConfigError
from repertoire.weights import input_moments, regmean


def patch(image: Tensor, conv: nn.Conv2d, group: int, row: int, column: int) -> Tensor:
    """What the weights of a group meet at one place of the output, number by number."""
    width = conv.in_channels // conv.groups
    values = []
    for channel in range(group * width, (group + 1) * width):
        for i in range(conv.kernel_size[0]):
            for j in range(conv.kernel_size[1]):
                y = row * conv.stride[0] + i * conv.dilation[0] - conv.padding[0]
                x = column * conv.stride[1] + j * conv.dilation[1] - conv.padding[1]
                inside = 0 <= y < image.shape[1] and 0 <= x < image.shape[2]
                values.append(float(image[channel, y, x]) if inside else 0.0)
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("groups", [1, 2])
def test_moments_of_a_convolution_are_those_of_its_patches(groups, monkeypatch):
    monkeypatch.setattr("repertoire.weights._moments.LARGEST", 200)  # several pieces a batch
    conv = nn.Conv2d(4, 6, (3, 2), stride=(1, 2), padding=(1, 0), dilation=(2, 1), groups=groups).double()
    images = torch.randn(5, 4, 7, 6, dtype=torch.float64)
    rows, columns = conv(images).shape[2:]
    found = input_moments(conv, [images[:2], images[2:]])[""]
    for group in range(groups):
        patches = [patch(image, conv, group, r, c) for image in images for r in range(rows) for c in range(columns)]
        expected = sum(torch.outer(p, p) for p in patches) / len(patches)
        torch.testing.assert_close(found if groups == 1 else found[group], expected)


def test_moments_of_linear_layers_are_over_all_rows():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Dropout(), nn.Linear(4, 2)).double()
    tokens = [torch.randn(2, 5, 3, dtype=torch.float64), torch.randn(3, 3, dtype=torch.float64)]
    rows = torch.cat([t.reshape(-1, 3) for t in tokens])
    hidden = net[0](rows).relu().detach()
    found = input_moments(net.train(), tokens)
    assert list(found) == ["0", "3"]
    torch.testing.assert_close(found["0"], rows.T @ rows / len(rows))
    torch.testing.assert_close(found["3"], hidden.T @ hidden / len(rows))
    assert list(input_moments(net, tokens, layers=["3"])) == ["3"]
    assert net.training
    assert not net[0]._forward_pre_hooks


def test_convolutions_of_one_dimension_and_other_paddings():
    conv = nn.Conv1d(2, 3, 3, padding="same", padding_mode="circular", bias=False).double()
    signal = torch.randn(2, 2, 5, dtype=torch.float64)
    moments = input_moments(conv, [signal])[""]
    weight = conv.weight.detach().reshape(3, -1)
    # The mean square of the outputs follows from the moments of the patches.
    torch.testing.assert_close((weight @ moments @ weight.T).diagonal(), conv(signal).square().mean((0, 2)).detach())


def test_what_is_not_there_is_refused():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    with pytest.raises(ConfigError, match="batches is empty"):
        input_moments(net, [])
    with pytest.raises(ConfigError, match="found 1, other"):
        input_moments(net, [torch.zeros(1, 3)], layers=["0", "1", "other"])


def networks(state, of=0):
    net = nn.Sequential(nn.Conv2d(2, 3, 2, groups=1), nn.Flatten(), nn.Linear(12, 2)).double()
    net.load_state_dict(dict(state))
    return net


def batches(of):
    generator = torch.Generator().manual_seed(of)
    for _ in range(2):
        yield torch.randn(20, 2, 3, 3, generator=generator, dtype=torch.float64)


def test_regmean_solves_the_regression_of_each_layer():
    states = []
    for seed in range(2):
        torch.manual_seed(seed)
        states.append(networks(nn.Sequential(nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(12, 2)).double().state_dict()))
    states = [net.state_dict() for net in states]
    found = regmean(states, networks, batches, off_diagonal=1.0)
    inputs, answers = [], []
    for number, state in enumerate(states):
        rows = networks(state)[:2](torch.cat(list(batches(number)))).detach()
        inputs.append(rows)
        answers.append(rows @ state["2.weight"].T)
    solved = torch.linalg.lstsq(torch.cat(inputs), torch.cat(answers)).solution.T
    torch.testing.assert_close(found["2.weight"], solved, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["2.bias"], (states[0]["2.bias"] + states[1]["2.bias"]) / 2)


def test_regmean_of_the_diagonal_weighs_by_the_size_of_inputs():
    def network(state, of=0):
        layer = nn.Linear(2, 1, bias=False)
        layer.load_state_dict(dict(state))
        return layer

    states = [{"weight": torch.tensor([[4.0, 1.0]])}, {"weight": torch.tensor([[0.0, 5.0]])}]
    rows = [torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0]])]
    found = regmean(states, network, lambda of: iter([rows[of]]), off_diagonal=0.0)["weight"]
    # 4 counts 1 and 0 counts 4; nothing is known of the second input, whose weights are averaged.
    torch.testing.assert_close(found, torch.tensor([[0.8, 1 * 0.2 + 5 * 0.8]]), rtol=1e-3, atol=1e-3)


def test_a_convolution_that_pads_its_input_itself_is_watched_behind_its_padding():
    """As that of the built-in network does, where the stride is two."""
    from repertoire.backbones import lite0

    net = lite0(in_channels=3, pretrained=False).eval()
    images = torch.randn(2, 3, 32, 32)
    name = next(n for n, m in net.named_modules() if isinstance(m, torch.nn.Conv2d))
    stem = net.get_submodule(name)
    assert stem.stride == (2, 2)
    found = input_moments(net, [images], [name])[name]
    # One pixel more at the far side, as TensorFlow pads.
    patches = torch.nn.functional.unfold(torch.nn.functional.pad(images, (0, 1, 0, 1)).double(), 3, stride=2)
    rows = patches.transpose(1, 2).flatten(0, 1)
    torch.testing.assert_close(found, rows.T @ rows / len(rows))
