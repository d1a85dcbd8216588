"""Every registered backbone is an ordered list of blocks whose composition, pooled, is the network."""

from __future__ import annotations

import inspect
from functools import cache

import pytest
import torch

from repertoire import registry
from repertoire.backbones import Backbone
from repertoire.errors import MissingExtra, UnknownName

SIZE = 32
#: What has to be said to build a backbone whose name alone does not.
SPECS = {"timm": "timm:resnet18", **{name: f"{name}:pretrained=false" for name in ("lite0", "lite1", "lite2")}}
#: What takes images; the other takes vectors and has nothing to learn, and its tests are in tests/backbones.
NAMES = [name for name in registry.names("backbones") if name != "identity"]
#: The deepest networks make a test slow and prove nothing that the shallow ones of the same class do not.
DEEP = ("resnet44", "resnet56", "resnet110", "lite1", "lite2")
LIGHT = [name for name in NAMES if name not in DEEP]


@cache
def _shared(name: str, channels: int) -> Backbone:
    try:
        return registry.build("backbones", SPECS.get(name, name), in_channels=channels, image_size=SIZE)
    except MissingExtra as error:
        pytest.skip(str(error))


def _build(name: str, channels: int = 3) -> Backbone:
    """A backbone in eval mode; its normalisation is not the initial one, which would hide a wrong order."""
    net = _shared(name, channels).eval()
    generator = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.normal_(0, 0.1, generator=generator)
            # Some networks start with the last gain of a residual branch at zero, and no gradient passes that.
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
    return net


def _images(count: int = 3, channels: int = 3) -> torch.Tensor:
    return torch.randn(count, channels, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=LIGHT)
def net(request: pytest.FixtureRequest) -> Backbone:
    return _build(request.param)


@pytest.mark.parametrize("name", registry.names("backbones"))
def test_it_is_documented(name: str) -> None:
    factory = registry.get("backbones", name).factory
    text = inspect.getdoc(factory) or ""
    assert text.split("\n", 1)[0].rstrip().endswith(".") or ":" in text.split("\n", 1)[0]
    assert ">>>" in text


@pytest.mark.parametrize("name", NAMES)
def test_blocks_and_stages_fit(name: str) -> None:
    net = _build(name)
    assert isinstance(net, Backbone)
    assert isinstance(net.blocks, torch.nn.ModuleList)
    assert net.stage_ends == sorted(set(net.stage_ends))
    assert net.stage_ends[0] >= 0
    assert net.stage_ends[-1] == len(net.blocks) - 1
    assert net.in_channels == 3


def test_forward_is_the_composition_of_the_blocks(net: Backbone) -> None:
    with torch.no_grad():
        x = _images()
        for block in net.blocks:
            before = x.clone()
            y = block(x)
            assert isinstance(y, torch.Tensor)
            assert torch.equal(x, before), "a block changed its input in place"
            x = y
        features = net(_images())
        torch.testing.assert_close(net.forward_map(_images()), x)
        torch.testing.assert_close(net.pool(x), features)
    assert features.shape == (3, net.out_features)
    assert features.isfinite().all()


def test_gradient_reaches_every_parameter(net: Backbone) -> None:
    net.train()
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    weights = torch.randn(net.out_features, generator=torch.Generator().manual_seed(2))
    (net(_images(4)) * weights).square().sum().backward()
    dead = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()]
    net.zero_grad(set_to_none=True)
    net.load_state_dict(state)
    assert not dead


def test_the_output_of_a_block_survives_the_backward_pass(net: Backbone) -> None:
    outputs: list[torch.Tensor] = []

    def keep(module: torch.nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        output.retain_grad()
        outputs.append(output)

    handles = [block.register_forward_hook(keep) for block in net.blocks]
    try:
        net(_images().requires_grad_()).sum().backward()
    finally:
        for handle in handles:
            handle.remove()
        net.zero_grad(set_to_none=True)
    assert len(outputs) == len(net.blocks)
    assert all(output.grad is not None for output in outputs)


def test_one_sample_is_enough_in_eval(net: Backbone) -> None:
    with torch.no_grad():
        torch.testing.assert_close(net(_images()[:1]), net(_images())[:1], rtol=1e-3, atol=1e-4)


def test_permuting_the_batch_permutes_the_features(net: Backbone) -> None:
    order = torch.tensor([2, 0, 1])
    with torch.no_grad():
        torch.testing.assert_close(net(_images()[order]), net(_images())[order], rtol=1e-3, atol=1e-4)


def test_memory_format_does_not_matter(net: Backbone) -> None:
    with torch.no_grad():
        expected = net(_images())
        found = net(_images().contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_every_stage_has_maps(net: Backbone) -> None:
    with torch.no_grad():
        x = _images()
        for index, block in enumerate(net.blocks):
            x = block(x)
            if index in net.stage_ends:
                maps = net.grid(x)
                assert maps.dim() == 4
                assert len(maps) == 3
                assert maps.shape[2] == maps.shape[3]


def test_stages_are_what_the_blocks_at_their_ends_give_out(net: Backbone) -> None:
    outputs: dict[int, torch.Tensor] = {}
    x = _images()
    with torch.no_grad():
        for index, block in enumerate(net.blocks):
            outputs[index] = x = block(x)
        stages = net.stages(_images())
    assert len(stages) == len(net.stage_ends)
    for found, end in zip(stages, net.stage_ends, strict=True):
        torch.testing.assert_close(found, outputs[end] if outputs[end].dim() == 3 else net.grid(outputs[end]))


@pytest.mark.parametrize("name", NAMES)
def test_each_parameter_is_in_one_group_and_the_groups_follow_the_blocks(name: str) -> None:
    net = _build(name)
    groups = net.groups()
    assert 0 <= net.stem <= net.stage_ends[0]
    assert len(groups) == len(net.stage_ends) + (net.stem > 0)
    assert all(groups)
    assert sorted(n for names in groups for n in names) == sorted(n for n, _ in net.named_parameters())
    starts = [net.stem, *(end + 1 for end in net.stage_ends)]
    if net.stem:
        starts.insert(0, 0)
    for number, names in enumerate(groups):
        places = [int(n.split(".")[1]) for n in names if n.startswith("blocks.")]
        assert all(starts[number] <= place < starts[number + 1] for place in places)


@pytest.mark.parametrize("name", LIGHT)
def test_the_last_stages_learn_alone(name: str) -> None:
    """What `groups` says is enough to train the last stage: nothing before it has a gradient."""
    net = _build(name)
    last = set(net.groups()[-1])
    try:
        for parameter_name, parameter in net.named_parameters():
            parameter.requires_grad_(parameter_name in last)
        net(_images()).square().sum().backward()
        assert {n for n, p in net.named_parameters() if p.grad is not None} == last
    finally:
        net.requires_grad_(True)
        net.zero_grad(set_to_none=True)


@pytest.mark.parametrize("name", NAMES)
def test_random_weights_have_no_preset(name: str) -> None:
    net = _build(name)
    assert net.preset is None
    if net.published is not None:
        assert len(net.published.mean) == net.in_channels
        assert net.published.source


@pytest.mark.parametrize("name", LIGHT)
def test_state_dict_round_trip(name: str) -> None:
    net = _build(name)
    other = registry.build("backbones", SPECS.get(name, name), in_channels=3, image_size=SIZE).eval()
    other.load_state_dict({key: value.clone() for key, value in net.state_dict().items()})
    with torch.no_grad():
        assert torch.equal(other(_images()), net(_images()))


@pytest.mark.parametrize("name", LIGHT)
def test_grey_images(name: str) -> None:
    net = _build(name, channels=1)
    assert net.in_channels == 1
    with torch.no_grad():
        assert net(_images(2, 1)).shape == (2, net.out_features)


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_option_is_refused(name: str) -> None:
    spec = SPECS.get(name, name)
    with pytest.raises(UnknownName, match="no_such_option"):
        registry.build(
            "backbones", f"{spec}{',' if ':' in spec else ':'}no_such_option=1", in_channels=3, image_size=SIZE
        )
