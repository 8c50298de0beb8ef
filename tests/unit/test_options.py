"""Options as annotated class attributes."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal, Optional

import pytest
from refusals import raises_line

from harness_ext import BadOptionError, ModelPruner, PluginError, Pruner, PruningMethod, StructuredPruner
from harness_ext.method.options import Configurable


class Thing(Configurable):
    """One option of every type."""

    kind: ClassVar[str] = "thing"
    name: ClassVar[str] = "demo"
    count: int = 3
    rate: float = 0.5
    label: str = "x"
    flag: bool = False
    choice: Literal["a", "b"] = "a"
    maybe: int | None = None
    old_maybe: Optional[float] = None  # noqa: UP045 - authors of plugins may write it so
    parts: list[int] = dataclasses.field(default_factory=list)
    anything: Any = None

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError("count is below zero")


class More(Thing):
    """Inherits options and adds one."""

    extra: int = 1


@pytest.mark.parametrize(
    "options",
    [
        {"count": 5},
        {"rate": 1},
        {"rate": 1.5},
        {"label": ""},
        {"flag": True},
        {"choice": "b"},
        {"maybe": 4},
        {"maybe": None},
        {"old_maybe": 2},
        {"old_maybe": None},
        {"parts": [1, 2]},
        {"anything": object},
        {"count": 1, "rate": 0.1, "label": "y"},
    ],
)
def test_values_of_the_right_type_are_taken(options):
    made = Thing.from_options(options)
    assert {name: getattr(made, name) for name in options} == options
    assert {name: value for name, value in made.options().items() if name not in options} == {
        name: value for name, value in Thing().options().items() if name not in options
    }


@pytest.mark.parametrize(
    "option_and_value",
    [
        ("count", 1.5),
        ("count", "5"),
        ("count", True),
        ("count", None),
        ("rate", "0.5"),
        ("rate", False),
        ("label", 7),
        ("flag", 1),
        ("choice", "c"),
        ("choice", 1),
        ("maybe", 0.5),
        ("maybe", True),
        ("old_maybe", "x"),
        ("parts", 3),
    ],
    ids=str,
)
def test_values_of_another_type_are_refused(option_and_value):
    option, value = option_and_value
    with raises_line(BadOptionError, f"thing.{option}={value!r}", "'demo'") as error:
        Thing.from_options({option: value})
    assert "typing." not in str(error.value)


def test_an_unknown_option_is_refused_with_the_nearest_and_all_names():
    with raises_line(BadOptionError, "'demo'", "'cuont'", "Did you mean 'count'?", "count=3, rate=0.5"):
        Thing.from_options({"cuont": 3})


def test_a_thing_without_options_says_so():
    class Bare(Configurable):
        kind: ClassVar[str] = "thing"
        name: ClassVar[str] = "bare"

    with raises_line(BadOptionError, "'bare'", "'x'", "no options"):
        Bare.from_options({"x": 1})


def test_a_value_error_of_the_class_is_a_bad_option_that_names_it():
    with raises_line(BadOptionError, "thing 'demo'", "count is below zero"):
        Thing.from_options({"count": -1})


def test_options_are_inherited():
    assert More.from_options({"extra": 2, "count": 7}).options()["count"] == 7
    with raises_line(BadOptionError, "'extra'"):
        Thing.from_options({"extra": 2})


def test_options_cannot_be_changed_afterwards():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Thing().count = 4


def test_the_class_attributes_of_a_pruner_are_no_options():
    class Own(Pruner):
        name = "own"
        group = "row"
        calibrated = True
        strength: float = 1.0

    assert Own.defaults() == {"strength": 1.0}


@pytest.mark.parametrize("method", ["score", "prune", "prune_together"])
def test_a_pruner_overrides_one_of_three_methods(method):
    with raises_line(PluginError, "Own", "score", "prune", "prune_together"):
        type("Own", (Pruner,), {"name": "own"}).check_class()
    type("Own", (Pruner,), {"name": "own", method: lambda *_: None}).check_class()


@pytest.mark.parametrize("base", [ModelPruner, StructuredPruner])
def test_a_pruner_of_models_overrides_prune_model(base):
    with raises_line(PluginError, "Own", "prune_model"):
        type("Own", (base,), {"name": "own", "score": lambda *_: None}).check_class()
    type("Own", (base,), {"name": "own", "prune_model": lambda *_: None}).check_class()


@pytest.mark.parametrize(("structured", "base"), [(False, "harness_ext.ModelPruner"), (True, "harness_ext.StructuredPruner")])
@pytest.mark.parametrize("others", [(), ("score",), ("prune", "prune_together")])
def test_a_pruner_with_prune_model_is_told_its_new_base_class(structured, base, others):
    own = type("Own", (Pruner,), {"name": "own", "structured": structured, **dict.fromkeys(("prune_model", *others), lambda *_: None)})
    with raises_line(PluginError, "Own", base):
        own.check_class()


def test_a_pruning_method_alone_is_no_base_class():
    with raises_line(PluginError, "Own", "harness_ext.Pruner, ModelPruner, StructuredPruner or Quantizer"):
        type("Own", (PruningMethod,), {"name": "own", "prune_model": lambda *_: None}).check_class()
