"""Helpers of all contracts: the plugin under test, small models, and messages about broken rules."""

from __future__ import annotations

import copy
import inspect
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NoReturn, TypeVar

import numpy as np
import pytest
import torch
from torch import nn

from harness_ext.engine.layers import LinearLayer, find_blocks
from harness_ext.engine.plan import make_plan
from harness_ext.engine.run import apply
from harness_ext.errors import BadOptionError, HarnessExtError
from harness_ext.method.allocation import Allocation
from harness_ext.method.calibration import Calibration
from harness_ext.method.options import Configurable
from harness_ext.method.pruner import PruningMethod
from harness_ext.method.source_code import versions
from harness_ext.plugins import Plugins, Registry, base_names

P = TypeVar("P", PruningMethod, Allocation, Calibration)

WIDTH, INNER, VOCABULARY, LONGEST = 16, 24, 64, 32
LAB = "lab-xs"


def fail(message: str) -> NoReturn:
    """Fails a test with a message of one line."""
    pytest.fail(message, pytrace=False)


@contextmanager
def told_in_one_line(when: str = "") -> Iterator[None]:
    """A context in which errors of this package fail the test without a traceback."""
    try:
        yield
    except HarnessExtError as error:
        fail(f"{when}{': ' if when else ''}{type(error).__name__}: {error}")


@lru_cache(maxsize=1)
def plugins() -> Plugins:
    """All plugins, loaded once, because installed packages do not change while tests run."""
    return Plugins()


def prune(model: Any, *, tokenizer: Any = None, **arguments: Any) -> dict[str, Any]:
    """Prunes a model, as :func:`harness_ext.prune`."""
    return apply(make_plan(plugins(), **arguments), model, tokenizer)


def make(base: type[P], registry: Registry[type[P]], given: Any, options: Mapping[str, Any]) -> P:
    """An instance of the plugin under test.

    Args:
        given: a class, a registered name, a method that returns an instance, or an instance.
        options: options for a class or a name.
    """
    if isinstance(given, str):
        given = registry.get(given)[0]
    if inspect.isclass(given) and issubclass(given, base):
        return given.from_options(options)
    instance = given() if callable(given) else given
    if not isinstance(instance, base):
        fail(f"want for {base.kind} a subclass of {base_names(base)}, a registered name or an instance, not {given!r}")
    return instance


def check_description(plugin: Configurable) -> None:
    """Checks that the name can be typed on a command line, that there is a docstring, and that requirements are installed."""
    name = getattr(plugin, "name", None)
    if not isinstance(name, str) or not name or any(mark in name for mark in " ,=/\\\t\n"):
        fail(f"{type(plugin).__qualname__}: want for its name a text without spaces, commas, equals signs and slashes, not {name!r}")
    docstring = inspect.getdoc(type(plugin)) or ""
    if not docstring or docstring == inspect.getdoc(type(plugin).__mro__[1]) or docstring.startswith(f"{type(plugin).__name__}("):
        fail(f"{plugin.kind} {name!r}: want a docstring of its class: it says what the {plugin.kind} does")
    with told_in_one_line():
        versions(type(plugin))


def check_options(plugin: Configurable) -> None:
    """Checks that options keep their values, are JSON values, and that a wrong name is an error with the nearest name."""
    cls, options, who = type(plugin), plugin.options(), f"{plugin.kind} {plugin.name!r}"
    if (returned := cls.from_options(options).options()) != options:
        fail(f"{who}: its options {options} come back as {returned}: __post_init__ may refuse values, not change them")
    for option, value in options.items():
        if not isinstance(value, (str, int, float, bool, type(None))):
            fail(f"{who}: want for the option {option} a text, a number, true, false or none, which a command line can give, not {value!r}")
    for wrong in [f"{option}_" for option in options] or ["no_such_option"]:
        message = _refusal(cls, {**options, wrong: 1}, f"{who}: an option {wrong!r}")
        if options and not any(f"Did you mean {option!r}" in message for option in options):
            fail(f"{who}: the refusal of {wrong!r} does not name the nearest option: {message}")
    for option in options:
        _refusal(cls, {**options, option: object()}, f"{who}: option {option} with a value of a wrong type")


def _refusal(cls: type[Configurable], options: Mapping[str, Any], what: str) -> str:
    try:
        cls.from_options(options)
    except BadOptionError as error:
        return str(error)
    fail(f"{what} was accepted: want a BadOptionError")


def small_model(dtype: torch.dtype = torch.float32) -> Any:
    """A new copy of a Llama with two decoder blocks and random nonzero weights, on the CPU."""
    return copy.deepcopy(_small()).to(dtype)


@lru_cache(maxsize=1)
def _small() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=INNER, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=LONGEST, tie_word_embeddings=False, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        model = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * WIDTH**-0.5 if parameter.ndim > 1 else 1 + 0.2 * noise)
    return model.eval()


def token_ids(samples: int = 6, length: int = 12, seed: int = 0) -> torch.Tensor:
    """Random token ids, int64 [samples, length], uniform over the vocabulary of ``small_model``."""
    return torch.randint(VOCABULARY, (samples, length), generator=torch.Generator().manual_seed(seed))


@lru_cache(maxsize=1)
def _lab() -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = str(plugins().models.get(LAB)[0])
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), AutoTokenizer.from_pretrained(folder)


def lab_model() -> Any:
    """A new copy of the smallest embedded model, in float32."""
    return copy.deepcopy(_lab()[0])


def lab_tokenizer() -> Any:
    return _lab()[1]


@lru_cache(maxsize=2)
def lab_text(seed: int) -> torch.Tensor:
    """Token ids that the smallest embedded model generates, int64 [16, 64]. Do not change the tensor."""
    source = plugins().calibrations.get("self")[0](samples=16, length=64, seed=seed)
    return source.input_ids(_lab()[0], None).clone()


def layers_of(model: Any) -> list[LinearLayer]:
    """The linear layers of all decoder blocks."""
    return [layer for block in find_blocks(model) for layer in block.layers]


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of all parameters and buffers."""
    return {name: tensor.detach().clone() for name, tensor in [*model.named_parameters(), *model.named_buffers()]}


def first_difference(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> str | None:
    """The first name whose tensors differ in any bit. NaN equals NaN."""
    for name in {**one, **other}:
        mine, yours = one.get(name), other.get(name)
        if mine is None or yours is None or mine.dtype != yours.dtype or mine.shape != yours.shape:
            return name
        if not torch.equal(mine.contiguous().flatten().view(torch.uint8), yours.contiguous().flatten().view(torch.uint8)):
            return name
    return None


def generator_states() -> tuple[Any, ...]:
    """States of the global random generators, in a form that can be compared."""
    state: Any = np.random.get_state()
    return random.getstate(), (state[1].tobytes(), state[2:]), torch.get_rng_state().numpy().tobytes()
