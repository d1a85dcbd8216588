from __future__ import annotations

from typing import Literal

import pytest

from repertoire import registry
from repertoire.errors import ConfigError, UnknownName


class _Thing:
    """A thing."""

    def __init__(
        self,
        in_features: int,
        width: int,
        rate: float = 0.5,
        flag: bool = False,
        kind: Literal["a", "b"] = "a",
        sizes: tuple[int, ...] = (1,),
        maybe: int | None = None,
        inner: str = "none",
    ) -> None:
        if rate < 0:
            raise ValueError(f"rate must not be negative, found {rate}")
        self.__dict__.update({name: value for name, value in locals().items() if name != "self"})


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(registry._REGISTRY, "heads", {})
    registry.register("heads", "thing")(_Thing)


def _build(spec: str) -> _Thing:
    return registry.build("heads", spec, in_features=8, num_classes=3)


def test_positional_named_and_defaults():
    thing = _build("thing:4,rate=0.25")
    assert (thing.in_features, thing.width, thing.rate, thing.flag) == (8, 4, 0.25, False)


@pytest.mark.parametrize(
    ("spec", "name", "value"),
    [
        ("thing:width=4", "width", 4),
        ("thing:width=4,flag=true", "flag", True),
        ("thing:width=4,kind=b", "kind", "b"),
        ("thing:width=4,sizes=(8,16)", "sizes", (8, 16)),
        ("thing:width=4,sizes=8", "sizes", (8,)),
        ("thing:width=4,maybe=none", "maybe", None),
        ("thing:width=4,maybe=3", "maybe", 3),
        ("thing: width = 4 , inner=(other:x=1,y=2)", "inner", "other:x=1,y=2"),
    ],
)
def test_values_take_the_declared_type(spec: str, name: str, value: object):
    assert getattr(_build(spec), name) == value


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("thing", "needs width"),
        ("thing:width=four", "option 'width' is 'four'"),
        ("thing:width=4,kind=c", "option 'kind' is 'c'"),
        ("thing:width=4,rate=-1", "rate must not be negative"),
        ("thing:width=4,width=5", "twice"),
        ("thing:4,width=5", "twice"),
        ("thing:width=4,5", "after a named one"),
        ("thing:width=4,,rate=1", "empty option"),
        ("thing:sizes=(1,2", "does not close"),
        ("thing:sizes=1)", "did not open"),
        (":width=4", "names no component"),
        ("thing:1,2,a,b,c,d,e,f,g,h", "at most"),
    ],
)
def test_bad_specs_are_refused(spec: str, message: str):
    with pytest.raises(ConfigError, match=message.replace("(", "\\(")):
        _build(spec)


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'thing'"):
        _build("thign:width=4")
    with pytest.raises(UnknownName, match="did you mean 'width'"):
        _build("thing:widht=4")
    with pytest.raises(UnknownName, match="did you mean 'losses'"):
        registry.names("loses")


def test_the_surroundings_are_not_the_users_to_set():
    with pytest.raises(UnknownName, match="in_features"):
        _build("thing:width=4,in_features=9")


def test_user_options_show_defaults():
    shown = registry.user_options(registry.get("heads", "thing"))
    assert shown == [
        "width", "rate=0.5", "flag=false", "kind=a", "sizes=(1)", "maybe=none", "inner=none",
    ]  # fmt: skip


def test_a_name_is_taken_once():
    with pytest.raises(ValueError, match="already"):
        registry.register("heads", "thing")(type("Other", (), {}))
    with pytest.raises(ValueError, match="no kind of component"):
        registry.register("nowhere", "thing")(_Thing)
