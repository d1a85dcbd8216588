"""What every registered loss must do, by the contract it declares."""

from __future__ import annotations

import copy
import math
import warnings

import pytest
import torch
from torch import Tensor

from repertoire import losses, registry
from repertoire.errors import ConfigError, RepertoireWarning, ShapeError
from repertoire.losses import (
    EmbeddingLoss,
    HLGauss,
    LogitsLoss,
    Loss,
    MultiLabelLoss,
    RegressionLoss,
    ViewsLoss,
)
from repertoire.losses.contracts import _positives

NAMES = registry.names("losses")
BY_CONTRACT = {
    contract: [name for name in NAMES if registry.get("losses", name).factory.contract == contract]
    for contract in ("logits", "embeddings", "views")
}
N, CLASSES, WIDTH = 9, 4, 6


NUMBERS = (RegressionLoss, HLGauss)


def kind_of_targets(name: str) -> str:
    """What a loss on logits is taught with: class indices `[N]`, labels `[N, C]`, or numbers `[N]`."""
    factory = registry.get("losses", name).factory
    return "labels" if issubclass(factory, MultiLabelLoss) else "numbers" if issubclass(factory, NUMBERS) else "classes"


BY_TARGETS = {
    kind: [name for name in BY_CONTRACT["logits"] if kind_of_targets(name) == kind]
    for kind in ("classes", "labels", "numbers")
}

pytestmark = pytest.mark.filterwarnings("ignore::repertoire.errors.RepertoireWarning")


#: What a loss needs to be told to fit the inputs of this suite.
OPTIONS: dict[str, dict[str, object]] = {"dimco": {"symbols": 3}}

#: Losses that draw from torch's random state while training; here they are evaluated.
RANDOM = {"metrix"}


def build(name: str, classes: int = CLASSES, **options: object) -> Loss:
    options = {**OPTIONS.get(name, {}), **options}
    spec = name + (":" + ",".join(f"{key}={value}" for key, value in options.items()) if options else "")
    counts = torch.arange(classes, 0, -1) ** 2
    torch.manual_seed(0)
    loss = registry.build("losses", spec, num_classes=classes, in_features=WIDTH, counts=counts, samples=64)
    loss.prepare(WIDTH)
    return loss.double().train(name not in RANDOM)


def inputs(loss: Loss, rows: int = N, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """Arguments that fit the contract; the floating point ones want a gradient."""
    generator = torch.Generator().manual_seed(seed)

    def rand(width: int) -> Tensor:
        return torch.randn(rows, width, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    labels = torch.arange(rows) % CLASSES
    if isinstance(loss, MultiLabelLoss):  # one or two labels a sample
        eye = torch.eye(CLASSES, dtype=torch.int64)
        return rand(CLASSES), eye[labels] | eye[torch.arange(rows) // 2 % CLASSES]
    if loss.contract == "logits":
        return rand(CLASSES), labels
    if loss.contract == "embeddings":
        return rand(WIDTH), labels
    return tuple(rand(WIDTH) for _ in range(loss.views))


def call(loss: Loss, arguments: tuple[Tensor, ...], order: Tensor | None = None) -> Tensor:
    """The loss of the arguments and of what else it wants, all in another order of the samples if one is given."""
    rows = len(arguments[0])
    known = {"index": torch.arange(rows), "transformation": torch.linspace(-1.0, 1.0, 4 * rows).view(rows, 4)}
    known = {name: known[name] for name in loss.wants}
    if order is not None:
        arguments, known = tuple(a[order] for a in arguments), {name: k[order] for name, k in known.items()}
    return loss(*arguments, **known)


def options_of_views(ending: str) -> list[tuple[str, str]]:
    """The losses on views that have an option whose name ends so, with that option."""
    return [
        (name, option)
        for name in BY_CONTRACT["views"]
        for option in registry.options(registry.get("losses", name).factory)
        if option.endswith(ending)
    ]


def lonely(loss: Loss, count: int) -> Tensor:
    """Labels of so many embeddings of which none has a positive."""
    return -1 - torch.arange(count) if loss.proxied else torch.arange(count)


def gradients(value: Tensor, arguments: tuple[Tensor, ...]) -> list[Tensor]:
    wanted = [a for a in arguments if a.requires_grad]
    found = torch.autograd.grad(value, wanted, allow_unused=True)
    return [torch.zeros_like(a) if g is None else g for a, g in zip(wanted, found, strict=True)]


def test_there_are_losses_of_every_contract():
    assert all(BY_CONTRACT.values())
    assert sum(map(len, BY_CONTRACT.values())) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_is_public_and_documented(name):
    entry = registry.get("losses", name)
    assert getattr(losses, entry.factory.__name__) is entry.factory
    assert entry.factory.__name__ in losses.__all__
    assert len(entry.summary) > 20
    assert entry.summary.endswith(".")
    assert ">>>" in entry.factory.__doc__
    kind = {"logits": LogitsLoss, "embeddings": EmbeddingLoss, "views": ViewsLoss}
    assert issubclass(entry.factory, kind[entry.factory.contract])


@pytest.mark.parametrize("name", NAMES)
def test_is_a_finite_scalar_whose_gradient_flows(name):
    loss = build(name)
    arguments = inputs(loss)
    before, twin = [a.detach().clone() for a in arguments], copy.deepcopy(loss)
    value = call(loss, arguments)
    assert value.shape == ()
    assert value.dtype == torch.float64
    assert value.isfinite()
    for gradient in gradients(value, arguments):
        assert gradient.isfinite().all()
        assert gradient.any(dim=1).all()
    for argument, old in zip(arguments, before, strict=True):
        torch.testing.assert_close(argument.detach(), old, rtol=0, atol=0)
    torch.testing.assert_close(call(twin, arguments), value, rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_small_step_down_the_gradient_lowers_it(name):
    loss = build(name)
    arguments = inputs(loss)
    value = call(loss, arguments)
    steps = iter(gradients(value, arguments))
    moved = tuple(a.detach() - 1e-4 * next(steps) if a.requires_grad else a for a in arguments)
    assert call(build(name), moved) < value


@pytest.mark.parametrize("name", NAMES)
def test_order_of_the_samples_does_not_matter(name):
    loss = build(name)
    arguments = inputs(loss)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(call(build(name), arguments, order), call(loss, arguments))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_loses_no_more_than_its_digits(name, dtype):
    loss = build(name)
    arguments = inputs(loss, rows=64, dtype=dtype)
    value = call(loss, arguments)
    exact = call(build(name), tuple(a.detach().double() if a.is_floating_point() else a for a in arguments))
    torch.testing.assert_close(value.double(), exact, rtol=1e-3, atol=1e-3)
    for argument, gradient in zip(arguments, gradients(value, arguments), strict=False):
        assert gradient.dtype == argument.dtype
        assert gradient.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rows", [0, 1])
def test_empty_batch_and_single_sample(name, rows):
    loss = build(name)
    arguments = inputs(loss, rows=rows)
    value = call(loss, arguments)
    assert value.isfinite()
    assert rows or value == 0
    assert all(g.isfinite().all() for g in gradients(value, arguments))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("magnitude", [0.0, 1e4])
def test_zero_and_large_values(name, magnitude):
    loss = build(name)
    arguments = tuple(
        (a.detach().float() * magnitude).requires_grad_() if a.is_floating_point() else a for a in inputs(loss)
    )
    value = call(loss, arguments)
    assert value.isfinite()
    assert all(g.isfinite().all() for g in gradients(value, arguments))


@pytest.mark.parametrize("name", BY_CONTRACT["logits"])
def test_logits_reductions(name):
    arguments = inputs(build(name))
    each = build(name, reduction="none")(*arguments)
    assert each.shape == (N,)
    torch.testing.assert_close(build(name, reduction="sum")(*arguments), each.sum())
    torch.testing.assert_close(build(name, reduction="mean")(*arguments), each.mean())
    factory = registry.get("losses", name).factory
    required = {"counts": torch.ones(CLASSES)} if "counts" in registry.options(factory) else {}
    with pytest.raises(ShapeError, match="reduction must be"):
        factory(**required, reduction="median")


@pytest.mark.parametrize("name", [*BY_TARGETS["classes"], *BY_TARGETS["labels"], "hl-gauss"])
def test_logits_of_a_single_class(name):
    logits = torch.randn(3, 1, requires_grad=True)
    targets = torch.zeros((3, 1) if name in BY_TARGETS["labels"] else 3, dtype=torch.int64)
    value = build(name, classes=1)(logits, targets)
    assert value.isfinite()
    assert gradients(value, (logits,))[0].isfinite().all()


@pytest.mark.parametrize("name", BY_CONTRACT["logits"])
@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8])
def test_targets_of_any_integer_dtype(name, dtype):
    loss = build(name)
    logits, targets = inputs(loss)
    torch.testing.assert_close(loss(logits, targets.to(dtype)), loss(logits, targets))


@pytest.mark.parametrize("name", BY_TARGETS["classes"])
@pytest.mark.parametrize(
    ("logits", "targets"),
    [
        (torch.zeros(3), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(3, 2, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(3, 2), torch.zeros(4, dtype=torch.int64)),
        (torch.zeros(3, 2), torch.zeros(3, 1, dtype=torch.int64)),
        (torch.zeros(3, 2), torch.zeros(3)),
        (torch.zeros(3, 2), torch.zeros(3, 3)),
        (torch.zeros(3, 2), torch.full((3,), 2)),
    ],
)
def test_logits_that_do_not_fit(name, logits, targets):
    with pytest.raises(ShapeError):
        build(name, classes=2)(logits, targets)


@pytest.mark.parametrize("name", BY_TARGETS["labels"])
@pytest.mark.parametrize(
    ("logits", "targets"),
    [
        (torch.zeros(3), torch.zeros(3)),
        (torch.zeros(3, 2, dtype=torch.int64), torch.zeros(3, 2)),
        (torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(3, 2), torch.zeros(2, 2)),
        (torch.zeros(3, 2), torch.zeros(3, 3)),
        (torch.zeros(3, 2), torch.full((3, 2), 2)),
        (torch.zeros(3, 2), torch.full((3, 2), torch.nan)),
    ],
)
def test_logits_of_several_labels_that_do_not_fit(name, logits, targets):
    with pytest.raises(ShapeError):
        build(name)(logits, targets)


@pytest.mark.parametrize("name", BY_TARGETS["labels"])
def test_labels_of_any_dtype(name):
    logits, targets = inputs(build(name))
    expected = build(name)(logits, targets)
    for dtype in (torch.bool, torch.float16, torch.float32):
        torch.testing.assert_close(build(name)(logits, targets.to(dtype)), expected)


@pytest.mark.parametrize("name", BY_TARGETS["numbers"])
@pytest.mark.parametrize(
    ("logits", "targets"),
    [
        (torch.zeros(3), torch.zeros(3)),
        (torch.zeros(3, 2, dtype=torch.int64), torch.zeros(3)),
        (torch.zeros(3, 2), torch.zeros(3, 1)),
        (torch.zeros(3, 2), torch.zeros(4)),
    ],
)
def test_logits_of_bins_that_do_not_fit(name, logits, targets):
    with pytest.raises(ShapeError):
        build(name)(logits, targets)


@pytest.mark.parametrize("name", BY_CONTRACT["embeddings"])
def test_names_of_the_labels_do_not_matter(name):
    loss = build(name)
    if loss.proxied:
        pytest.skip("a label is the number of a learned vector")
    embeddings, labels = inputs(loss)
    names = torch.tensor([-1, 2**40, -(2**50), 0])
    torch.testing.assert_close(loss(embeddings, names[labels]), loss(embeddings, labels))


@pytest.mark.parametrize("name", BY_CONTRACT["embeddings"])
def test_one_class(name):
    embeddings, labels = inputs(build(name))
    value = build(name)(embeddings, torch.zeros_like(labels))
    assert value.isfinite()
    assert gradients(value, (embeddings,))[0].isfinite().all()


@pytest.mark.parametrize("name", BY_CONTRACT["embeddings"])
def test_no_positives_is_zero_without_gradient(name):
    loss = build(name)
    embeddings, _ = inputs(loss)
    value = loss(embeddings, lonely(loss, N))
    assert value == 0
    assert not gradients(value, (embeddings,))[0].any()
    labels, others = lonely(loss, 2 * N).split(N)
    value = loss(embeddings, labels[:1].expand(N), embeddings.detach(), others[:1].expand(N))
    assert value == 0
    assert not gradients(value, (embeddings,))[0].any()


@pytest.mark.parametrize("name", BY_CONTRACT["embeddings"])
def test_an_anchor_without_positives_adds_no_term(name):
    loss = build(name)
    (embeddings, labels), (others, _) = inputs(loss), inputs(loss, seed=1)
    alone = torch.cat([labels, 99 + lonely(loss, 1) if not loss.proxied else lonely(loss, 1)])
    with_it = loss(torch.cat([embeddings, others[:1]]), alone, others, labels)
    torch.testing.assert_close(with_it, loss(embeddings, labels, others, labels))


@pytest.mark.parametrize("name", BY_CONTRACT["embeddings"])
def test_a_reference_set_takes_part(name):
    loss = build(name)
    (embeddings, labels), (others, _) = inputs(loss), inputs(loss, rows=N - 2, seed=1)
    value = loss(embeddings, labels, others, labels[: N - 2])
    assert value.shape == ()
    for gradient in gradients(value, (embeddings, others)):
        assert gradient.isfinite().all()
        assert gradient.any()


@pytest.mark.parametrize("name", BY_CONTRACT["embeddings"])
@pytest.mark.parametrize(
    "arguments",
    [
        (torch.zeros(3), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(3, 2, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(3, 2), torch.zeros(4, dtype=torch.int64)),
        (torch.zeros(3, 2), torch.zeros(3)),
        (torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64), torch.zeros(3, 2)),
        (torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64), torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64), torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64)),
    ],
)
def test_embeddings_that_do_not_fit(name, arguments):
    with pytest.raises(ShapeError):
        build(name)(*arguments)


@pytest.mark.parametrize("name", BY_CONTRACT["embeddings"])
def test_no_positives_are_warned_about_once(name, monkeypatch):
    monkeypatch.setattr(_positives, "_warned", set())
    loss = build(name)
    embeddings, _ = inputs(loss)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loss(embeddings, lonely(loss, N))
        loss(embeddings, lonely(loss, N))
    messages = [str(w.message) for w in caught if issubclass(w.category, RepertoireWarning)]
    assert [m[:60] for m in messages] == ["no embedding of the batch has another one with its label: th"]


@pytest.mark.parametrize("name", BY_CONTRACT["embeddings"])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
def test_labels_of_any_integer_dtype(name, dtype):
    loss = build(name)
    embeddings, labels = inputs(loss)
    torch.testing.assert_close(loss(embeddings, labels.to(dtype)), loss(embeddings, labels))


@pytest.mark.parametrize("name", BY_CONTRACT["embeddings"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_row_that_is_not_finite_shows_and_can_be_named(name, bad):
    loss = build(name)
    embeddings, labels = inputs(loss)
    embeddings = embeddings.detach().clone()
    embeddings[5, 2] = bad
    assert not loss(embeddings, labels).isfinite()
    kind = "not a number" if math.isnan(bad) else "infinite"
    assert losses.explain_nonfinite(embeddings) == f"1 of {N} rows are not finite: 5 ({kind})"


@pytest.mark.parametrize("name", BY_CONTRACT["embeddings"])
def test_a_zero_vector_among_others(name):
    loss = build(name)
    embeddings, labels = inputs(loss)
    embeddings = embeddings.detach().clone()
    embeddings[[0, 4, 5]] = 0.0  # two of a class, and one of another
    embeddings.requires_grad_()
    value = loss(embeddings, labels)
    assert value.isfinite()
    assert gradients(value, (embeddings,))[0].isfinite().all()


@pytest.mark.parametrize("name", BY_CONTRACT["embeddings"])
def test_equal_embeddings(name):
    loss = build(name)
    embeddings, labels = inputs(loss)
    embeddings = embeddings.detach()[:1].repeat(N, 1).requires_grad_()
    value = loss(embeddings, labels)
    assert value.isfinite()
    assert gradients(value, (embeddings,))[0].isfinite().all()


@pytest.mark.parametrize("name", BY_CONTRACT["embeddings"])
@pytest.mark.parametrize("value", ["0", "-0.1", "nan"])
def test_a_temperature_is_positive(name, value):
    options = registry.options(registry.get("losses", name).factory)
    temperatures = [option for option in options if option.endswith("temperature")]
    if not temperatures:
        pytest.skip("has no temperature")
    for option in temperatures:
        with pytest.raises(ConfigError, match="must be positive"):
            build(name, **{option: value})


@pytest.mark.parametrize("name", BY_CONTRACT["embeddings"])
def test_autocast_makes_no_difference(name):
    loss = build(name).float()
    embeddings, labels = inputs(loss, rows=64, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(embeddings, labels)
    torch.testing.assert_close(found, loss(embeddings, labels))


@pytest.mark.parametrize("name", BY_CONTRACT["embeddings"])
def test_its_state_is_complete(name):
    """What a loss remembers or learns is in its state: a copy with that state goes on exactly."""
    loss, labels = build(name), torch.arange(N) % CLASSES
    index = {"index": torch.arange(N)} if "index" in loss.wants else {}
    for seed in range(3):
        torch.manual_seed(seed)
        loss(*inputs(loss, seed=seed), **index)
        loss.after_update()
    other = build(name)
    other.load_state_dict(loss.state_dict())
    for seed in range(3, 5):
        values = []
        for one in (loss, other):
            torch.manual_seed(seed)
            values.append(one(inputs(one, seed=seed)[0], labels, **index))
            one.after_update()
        assert torch.equal(*values)


@pytest.mark.parametrize("name", BY_CONTRACT["views"])
def test_wants_two_views_or_more(name):
    assert build(name).views >= 2


@pytest.mark.parametrize("name", BY_CONTRACT["views"])
@pytest.mark.parametrize(
    "view",
    [
        torch.zeros(N + 1, WIDTH),
        torch.zeros(N, WIDTH - 1),
        torch.zeros(N),
        torch.zeros(N, WIDTH, 1),
        torch.zeros(N, WIDTH, dtype=torch.float64),
        torch.zeros(N, WIDTH, dtype=torch.int64),
    ],
)
def test_a_view_that_does_not_fit_the_others(name, view):
    loss = build(name)
    views = [torch.zeros(N, WIDTH) for _ in range(loss.views - 1)]
    with pytest.raises(ShapeError, match=f"view {loss.views - 1} must be"):
        call(loss, (*views, view))


@pytest.mark.parametrize("name", BY_CONTRACT["views"])
@pytest.mark.parametrize("count", [0, 1])
def test_too_few_views(name, count):
    with pytest.raises(ShapeError, match=f"two views of every sample, found {count}"):
        build(name)(*(torch.zeros(N, WIDTH),) * count)


@pytest.mark.parametrize("name", BY_CONTRACT["views"])
def test_views_that_are_all_no_floats(name):
    loss = build(name)
    with pytest.raises(ShapeError, match="view 0 must be a floating point"):
        call(loss, (torch.zeros(N, WIDTH, dtype=torch.int64),) * loss.views)


@pytest.mark.parametrize("name", BY_CONTRACT["views"])
def test_more_views_than_it_asks_for(name):
    loss = build(name)
    views = tuple(torch.cat([inputs(loss, seed=seed)[0] for seed in range(loss.views + 1)]).split(N))
    value = call(loss, views)
    assert value.isfinite()
    for gradient in gradients(value, views):
        assert gradient.isfinite().all()
        assert gradient.any()


@pytest.mark.parametrize("name", BY_CONTRACT["views"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("last", [False, True])
def test_a_row_of_a_view_that_is_not_finite_shows_and_can_be_named(name, bad, last):
    loss = build(name)
    views = [view.detach().clone() for view in inputs(loss)]
    views[-1 if last else 0][5, 2] = bad
    assert not call(loss, tuple(views)).isfinite()
    kind = "not a number" if math.isnan(bad) else "infinite"
    assert losses.explain_nonfinite(views[-1 if last else 0]) == f"1 of {N} rows are not finite: 5 ({kind})"


@pytest.mark.parametrize("name", BY_CONTRACT["views"])
@pytest.mark.parametrize("rows", [slice(0, 1), slice(2, 5)])
def test_zero_vectors_in_a_view(name, rows):
    loss = build(name)
    views = tuple(view.detach().clone() for view in inputs(loss))
    views[0][rows] = 0.0
    for view in views:
        view.requires_grad_()
    value = call(loss, views)
    assert value.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients(value, views))


@pytest.mark.parametrize("name", BY_CONTRACT["views"])
@pytest.mark.parametrize("what", ["views", "samples", "both"])
def test_equal_views_and_equal_samples(name, what):
    loss = build(name)
    views = [view.detach() for view in inputs(loss)]
    if what != "samples":
        views = [views[0].clone() for _ in views]
    if what != "views":
        views = [view[:1].repeat(N, 1) for view in views]
    views = tuple(view.requires_grad_() for view in views)
    value = call(loss, views)
    assert value.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients(value, views))


@pytest.mark.parametrize("name", BY_CONTRACT["views"])
def test_fewer_samples_than_dimensions(name):
    loss = build(name)
    views = inputs(loss, rows=WIDTH - 3)
    value = call(loss, views)
    assert value.isfinite()
    for gradient in gradients(value, views):
        assert gradient.isfinite().all()
        assert gradient.any()


@pytest.mark.parametrize(("name", "option"), options_of_views("temperature"))
@pytest.mark.parametrize("value", ["0", "-0.1", "nan"])
def test_a_temperature_of_a_loss_on_views_is_positive(name, option, value):
    with pytest.raises(ConfigError, match="must be positive"):
        build(name, **{option: value})


@pytest.mark.parametrize(("name", "option"), options_of_views("weight"))
@pytest.mark.parametrize("value", ["-0.1", "nan"])
def test_a_weight_in_a_loss_on_views_is_not_negative(name, option, value):
    with pytest.raises(ConfigError, match="must be 0 or more"):
        build(name, **{option: value})


@pytest.mark.parametrize("name", BY_CONTRACT["views"])
def test_state_of_a_loss_on_views_is_complete(name):
    """What a loss remembers or learns is in its state: a copy with that state goes on exactly."""
    loss = build(name)
    for seed in range(3):
        call(loss, inputs(loss, seed=seed))
        loss.after_update()
    other = build(name)
    other.load_state_dict(loss.state_dict())
    for seed in range(3, 6):
        values = [call(one, inputs(one, seed=seed)) for one in (loss, other)]
        assert torch.equal(*values)
        for one in (loss, other):
            one.after_update()


@pytest.mark.parametrize("name", BY_CONTRACT["views"])
def test_a_loss_on_views_that_is_evaluated_leaves_no_trace(name):
    """A run rehearses its first step in evaluation mode, and then begins as if it had not."""
    loss = build(name)
    call(loss, inputs(loss))
    before = {key: value.clone() for key, value in loss.state_dict().items()}
    loss.eval()
    with torch.no_grad():
        assert call(loss, inputs(loss, seed=1)).isfinite()
    for key, value in loss.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize("name", BY_CONTRACT["views"])
def test_autocast_does_not_change_a_loss_on_views(name):
    loss = build(name).float()
    views = tuple(view.detach().float() for view in inputs(loss))
    expected = call(loss, views)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = call(build(name).float(), views)
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("name", BY_CONTRACT["views"])
def test_what_a_loss_on_views_learns_gets_a_gradient(name):
    loss = build(name)
    call(loss, inputs(loss)).backward()
    for parameter in loss.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


def real_options() -> list[tuple[str, str]]:
    """The options of all losses that are real numbers, with the loss."""
    found = []
    for name in NAMES:
        factory = registry.get("losses", name).factory
        for option, parameter in registry.options(factory).items():
            if isinstance(parameter.default, float):
                found.append((name, option))
    return found


@pytest.mark.parametrize(("name", "option"), real_options())
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_options_that_are_no_numbers_never_make_a_loss_that_is_none(name, option, value):
    try:
        loss = build(name, **{option: value})
    except ConfigError:
        return
    assert value != "nan", "accepted"
    assert call(loss, inputs(loss)).isfinite()


@pytest.mark.parametrize("name", [name for name in NAMES if "index" in build(name).wants])
@pytest.mark.parametrize(
    ("index", "said"),
    [
        (torch.arange(3), r"index must be integers \[9\], one a sample, found torch.int64 \[3\]"),
        (torch.arange(9.0), "found torch.float32"),
        (torch.arange(9)[:, None], r"found torch.int64 \[9, 1\]"),
        (56 + torch.arange(9), r"index must be in 0..63.*found 64"),
        (-1 + torch.arange(9), r"index must be in 0..63.*found -1"),
    ],
    ids=["short", "floats", "a column", "too high", "negative"],
)
def test_numbers_of_samples_that_do_not_fit_are_named(name, index, said):
    loss = build(name)
    with pytest.raises(ShapeError, match=said):
        loss(*inputs(loss), index=index)


@pytest.mark.parametrize(
    "name", [n for n in BY_CONTRACT["embeddings"] if "queue" in registry.options(registry.get("losses", n).factory)]
)
def test_embeddings_of_another_width_than_those_in_the_queue(name):
    loss = build(name, queue=8)
    embeddings, labels = inputs(loss)
    loss(embeddings, labels)
    loss.after_update()
    with pytest.raises(ShapeError, match=r"embeddings must be \[N, 6\] like those of earlier batches, found \[9, 5\]"):
        loss(embeddings[:, :5], labels)
