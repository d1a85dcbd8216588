"""Names to components: one registry and one grammar for the command line, configuration files and Python.

A component is registered under a *kind* and a name, and built from a *spec*:

    supcon                                  a name
    supcon:temperature=0.1                  with options
    timm:resnet50,pretrained=true           a positional option comes before named ones
    local:blocks=4,auxiliary=(auglocal:depth=2,width=16)     a nested spec or a list goes in parentheses

Options are converted to the type that the component's signature declares. An unknown name or option is answered with
the nearest known one.
"""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from repertoire.errors import ConfigError, UnknownName

__all__ = ["Entry", "Spec", "build", "entries", "get", "names", "options", "parse", "register", "split", "user_options"]

T = TypeVar("T", bound=Callable[..., Any])


@dataclass(frozen=True)
class Kind:
    """A kind of component: all that is known of it, in one place.

    Attributes:
        name: what it is called in the registry: the plural.
        singular: what one component of it is called in a message.
        modules: the modules that register all of them when they are imported.
        supplied: what the surroundings supply when they build one; not for the user to set.
        command: how one is tried from the command line, with `{spec}` and `{data}`; empty where it is used in Python.
        contract: what every one of them does, in a sentence.
    """

    name: str
    singular: str
    modules: tuple[str, ...]
    supplied: tuple[str, ...] = ()
    command: str = ""
    contract: str = ""


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "data",
            "data source",
            ("repertoire.data",),
            ("request",),
            "repertoire train {spec}",
            "`source(request, **options) -> Splits`: training, validation and test samples",
        ),
        Kind(
            "augmentations",
            "augmentation",
            ("repertoire.data",),
            (),
            "repertoire train {data} --augment {spec}",
            "`augmentation(uint8 [N, H, W, C]) -> float [N, C, H, W]`, from torch's random state",
        ),
        Kind(
            "backbones",
            "backbone",
            ("repertoire.backbones",),
            ("in_channels", "image_size"),
            "repertoire train {data} --backbone {spec}",
            "an ordered list of `blocks`, one tensor from each to the next, pooled to features `[N, d]`",
        ),
        Kind(
            "adapters",
            "adapter",
            ("repertoire.adapters",),
            (),
            "repertoire train {data} --backbone lite0 --adapter {spec}",
            "`adapter.change(weight) -> change`: what learns beside the weight of a frozen layer, at first no change",
        ),
        Kind(
            "losses",
            "loss",
            ("repertoire.losses",),
            ("weight", "counts", "num_classes", "samples"),
            "repertoire train {data} --loss {spec}",
            "`loss(logits, targets)`, `loss(embeddings, labels)`, `loss(*views)` or `loss(logits)`: a scalar",
        ),
        Kind(
            "heads",
            "head",
            ("repertoire.heads",),
            ("in_features", "num_classes"),
            "repertoire train {data} --head {spec}",
            "`head(features, targets=None) -> logits`",
        ),
        Kind(
            "methods",
            "method",
            ("repertoire.methods",),
            ("model", "loss", "image_size", "samples", "teacher", "unlabelled", "counts"),
            "repertoire train {data} --method {spec}",
            "`method.step(batch) -> Step`: what is optimised, with `needs` declared",
        ),
        Kind(
            "rules",
            "rule",
            ("repertoire.rules", "repertoire.local"),
            (),
            "repertoire train {data} --rule {spec}",
            "`rule.step(method, batch) -> logs`: a batch becomes changed weights",
        ),
        Kind(
            "auxiliaries",
            "auxiliary network",
            ("repertoire.local",),
            ("site",),
            "repertoire train {data} --rule local:auxiliary={spec}",
            "`auxiliary.objective(x, batch, loss) -> Step`: trains a block that cannot see the loss",
        ),
        Kind(
            "explainers",
            "explainer",
            ("repertoire.explain",),
            (),
            "repertoire explain runs/a photo.jpg --explainer {spec}",
            "`explainer(model, images, target) -> maps [N, H, W]`",
        ),
        Kind(
            "diagnostics",
            "diagnostic",
            ("repertoire.diagnostics",),
            (),
            "",
            "`diagnostic(features, labels) -> numbers`",
        ),
        Kind(
            "protocols",
            "protocol",
            ("repertoire.protocols",),
            (),
            "repertoire train {data} --protocol {spec} --method replay",
            "`protocol.stages(splits, seed) -> stages`: what is learned one after another, and what is measured",
        ),
        Kind(
            "selectors",
            "selector",
            ("repertoire.select",),
            ("probabilities", "features", "labelled", "count", "budget", "generator"),
            "repertoire select runs/a unlabelled/ --budget 20 --selector {spec}",
            "`selector(probabilities, features, budget) -> indices`: which samples to label next",
        ),
        Kind(
            "weight-operators",
            "weight operator",
            ("repertoire.weights",),
            ("states", "base", "network", "batches", "score", "report", "progress"),
            "repertoire merge runs/a runs/b --by {spec} --out runs/merged",
            "`operator(states, ...) -> state`, or `Stored` where the result has another form",
        ),
        Kind(
            "compressors",
            "compressor",
            ("repertoire.compress",),
            ("model", "base", "batches", "score", "progress"),
            "repertoire compress runs/a --by {spec} --out runs/small",
            "`compressor(model, ...) -> Stored`: the same network in fewer bytes",
        ),
        Kind(
            "novelty-scores",
            "novelty score",
            ("repertoire.openset",),
            ("weight", "bias"),
            "repertoire predict runs/a new/ --reject 0.95 --score {spec}",
            "`fit(features, logits, labels)`, then `score(features, logits) -> [N]`, higher for what is known",
        ),
        Kind(
            "discoverers",
            "discoverer",
            ("repertoire.discover",),
            (),
            "repertoire discover {data} --known known/ --method {spec}",
            "`discoverer.fit_predict(X, y) -> labels`: unlabelled rows into known classes and new groups",
        ),
        Kind(
            "feature-estimators",
            "estimator on features",
            ("repertoire.estimators",),
            (),
            "repertoire fit-features features.npz --estimator {spec}",
            "`fit(features, labels)`, `predict(features)`, `score(features, labels)`",
        ),
        Kind(
            "zero-shot-classifiers",
            "zero-shot classifier",
            ("repertoire.zeroshot",),
            (),
            "repertoire fit-features features.npz --attributes attributes.csv --estimator {spec}",
            "`fit(features, labels, descriptions)`, `predict(features, descriptions)`: classes that have no rows",
        ),
    )
}


@dataclass(frozen=True)
class Entry:
    """One registered component."""

    kind: str
    name: str
    factory: Callable[..., Any]
    paper: str | None
    """Slug of the paper's card, or None for a component that is common knowledge."""

    @property
    def dotted(self) -> str:
        """Public dotted name, as cards list it: `repertoire.losses.SupCon`."""
        module = ".".join(self.factory.__module__.split(".")[:2])
        return f"{module}.{self.factory.__name__}"

    @property
    def summary(self) -> str:
        """First line of the docstring."""
        return (inspect.getdoc(self.factory) or "").split("\n", 1)[0]


@dataclass(frozen=True)
class Spec:
    """A parsed spec: the name, the positional options and the named ones, all still text (or nested lists of it)."""

    name: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


_REGISTRY: dict[str, dict[str, Entry]] = {kind: {} for kind in KINDS}


def register(kind: str, name: str, *, paper: str | None = None) -> Callable[[T], T]:
    """Decorator that enters a class or function into the registry.

    A component that comes from a paper is found under the slug of the paper's card too: `--loss siglip` is
    `--loss sigmoid-pairwise`.

    Args:
        kind: a key of `KINDS`.
        name: lower-case, words joined by hyphens; what the user types.
        paper: slug of the paper's card, if the component comes from one paper.

    Raises:
        ValueError: there is no such kind, or the name is taken.
    """
    if kind not in _REGISTRY:
        raise ValueError(f"no kind of component is named {kind!r}; the kinds are {', '.join(KINDS)}")

    def decorate(factory: T) -> T:
        existing = _REGISTRY[kind].get(name)
        if existing is not None and (existing.factory.__module__, existing.factory.__qualname__) != (
            factory.__module__,
            factory.__qualname__,
        ):
            raise ValueError(f"{kind} {name!r} is already {existing.dotted}")
        _REGISTRY[kind][name] = Entry(kind, name, factory, paper)
        return factory

    return decorate


def _known(kind: str) -> dict[str, Entry]:
    if kind not in KINDS:
        raise UnknownName("kind of component", kind, list(KINDS))
    for module in KINDS[kind].modules:
        importlib.import_module(module)
    return _REGISTRY[kind]


def entries(kind: str) -> list[Entry]:
    """All components of a kind, by name."""
    return [entry for _, entry in sorted(_known(kind).items())]


def names(kind: str) -> list[str]:
    """The names of all components of a kind, sorted."""
    return sorted(_known(kind))


def get(kind: str, name: str) -> Entry:
    """The entry of that name, or of the one component of this kind that performs the paper of that slug.

    Raises:
        UnknownName: there is none; the message suggests the nearest.
    """
    known = _known(kind)
    if name in known:
        return known[name]
    of_paper = [entry for entry in known.values() if entry.paper == name]
    if len(of_paper) == 1:
        return of_paper[0]
    if of_paper:
        found = ", ".join(sorted(entry.name for entry in of_paper))
        raise ConfigError(f"{name!r} is the paper of several components; name one of them: {found}")
    raise UnknownName(KINDS[kind].singular, name, list(known))


def parse(spec: str) -> Spec:
    """Splits a spec into name and options.

    >>> parse("local:blocks=4,auxiliary=(auglocal:depth=2,width=16)").kwargs["auxiliary"]
    'auglocal:depth=2,width=16'
    >>> parse("timm:resnet50").args
    ('resnet50',)

    Raises:
        ConfigError: parentheses do not match, an option is empty or given twice.
    """
    text = spec.strip()
    name, colon, rest = text.partition(":")
    if not name:
        raise ConfigError(f"{spec!r} names no component; write name or name:key=value,key=value")
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for item in _split(rest, spec) if colon else ():
        key, equals, value = item.partition("=")
        if equals and key.strip().replace("-", "_").isidentifier():
            key = key.strip().replace("-", "_")
            if key in kwargs:
                raise ConfigError(f"{spec!r} gives the option {key!r} twice")
            kwargs[key] = _unwrap(value.strip())
        elif kwargs:
            raise ConfigError(f"{spec!r} has the positional option {item!r} after a named one")
        else:
            args.append(_unwrap(item.strip()))
    return Spec(name.strip(), tuple(args), kwargs)


def split(text: str) -> list[str]:
    """The items of a list of specs: split at the commas outside parentheses, which may stand around an item.

    >>> split("supcon,(local:blocks=4,width=16)")
    ['supcon', 'local:blocks=4,width=16']

    Raises:
        ConfigError: parentheses do not match, or an item is empty.
    """
    return [_unwrap(item.strip()) for item in _split(text, text, "value")]


def _split(text: str, spec: str, noun: str = "option") -> list[str]:
    """Splits at the commas that stand outside parentheses."""
    items, depth, start = [], 0, 0
    for position, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth < 0:
            raise ConfigError(f"{spec!r} closes a parenthesis that it did not open")
        if character == "," and depth == 0:
            items.append(text[start:position])
            start = position + 1
    if depth:
        raise ConfigError(f"{spec!r} opens a parenthesis that it does not close")
    items.append(text[start:])
    if any(not item.strip() for item in items):
        raise ConfigError(f"{spec!r} has an empty {noun}")
    return items


def _unwrap(value: str) -> str:
    return value[1:-1] if value.startswith("(") and value.endswith(")") else value


def options(factory: Callable[..., Any], given: Mapping[str, Any] | None = None) -> dict[str, inspect.Parameter]:
    """The options a user may set: the parameters of the factory, without those that the caller supplies."""
    parameters = inspect.signature(factory).parameters
    wanted = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {n: p for n, p in parameters.items() if p.kind in wanted and n not in (given or {})}


def user_options(entry: Entry) -> list[str]:
    """The options of a component as a user would write them: `temperature=0.1`, or `name` where there is no default."""
    supplied = dict.fromkeys(KINDS[entry.kind].supplied)
    shown = []
    for name, parameter in options(entry.factory, supplied).items():
        default = parameter.default
        shown.append(name if default is inspect.Parameter.empty else f"{name}={_show(default)}")
    return shown


def _show(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return f"({','.join(map(str, value))})" if isinstance(value, tuple | list) else str(value)


#: Told the entry of every component that `build` hands out: evidence is bound to the components that it measured.
WATCHERS: list[Callable[[Entry], None]] = []


def build(kind: str, spec: str | Spec, **context: Any) -> Any:
    """Builds a component from its spec.

    Args:
        kind: a key of `KINDS`.
        spec: see the module's grammar.
        context: what the surroundings know (`in_features=64`, `num_classes=10`); passed on where the component's
            signature has a parameter of that name, and not settable in the spec.

    Raises:
        UnknownName: unknown component or option, with the nearest suggested.
        ConfigError: a value of the wrong type or out of range, or a required option that is missing.
    """
    parsed = parse(spec) if isinstance(spec, str) else spec
    entry = get(kind, parsed.name)
    called = f"{KINDS[kind].singular} {parsed.name!r}"
    everything = inspect.signature(entry.factory).parameters
    supplied = {key: value for key, value in context.items() if key in everything}
    allowed = options(entry.factory, supplied)
    if len(parsed.args) > len(allowed):
        raise ConfigError(f"{called} takes at most {len(allowed)} options, {len(parsed.args)} given")
    chosen = dict(zip(allowed, parsed.args, strict=False))
    for key, value in parsed.kwargs.items():
        if key not in allowed:
            raise UnknownName(f"option of {called}", key, list(allowed))
        if key in chosen:
            raise ConfigError(f"{called} is given the option {key!r} twice")
        chosen[key] = value
    missing = [n for n, p in allowed.items() if p.default is inspect.Parameter.empty and n not in chosen]
    if missing:
        raise ConfigError(f"{called} needs {', '.join(missing)}: write {parsed.name}:{missing[0]}=...")
    hints = _hints(entry.factory)
    converted = {key: _convert(called, key, value, hints.get(key, Any)) for key, value in chosen.items()}
    for watcher in WATCHERS:
        watcher(entry)
    try:
        return entry.factory(**supplied, **converted)
    except UnknownName:
        raise
    except ValueError as error:
        # Also what a component inside this one has said: from outside to inside, as the spec is written.
        text = str(error)
        raise ConfigError(text if text.startswith(called) else f"{called}: {text}") from error


def _hints(factory: Callable[..., Any]) -> dict[str, Any]:
    target = factory.__init__ if inspect.isclass(factory) else factory
    return typing.get_type_hints(target)


def _convert(kind: str, key: str, value: Any, annotation: Any) -> Any:
    import pydantic

    if isinstance(value, str):
        if value.lower() in ("none", "null") and type(None) in typing.get_args(annotation):
            return None
        if any(typing.get_origin(a) in (tuple, list) for a in (annotation, *typing.get_args(annotation))):
            value = [item.strip() for item in value.split(",")]
    try:
        # Tensors and modules pass as they are: there is nothing to convert them from.
        config = pydantic.ConfigDict(arbitrary_types_allowed=True)
        return pydantic.TypeAdapter(annotation, config=config).validate_python(value)
    except pydantic.ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise ConfigError(f"{kind}: option {key!r} is {value!r}; {reason[0].lower()}{reason[1:]}") from error
