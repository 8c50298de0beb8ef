"""Options as annotated class attributes: ``block_size: int = 128`` in a pruner is the option ``pruner.block_size``."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from typing_extensions import dataclass_transform

from harness_ext.errors import BadOptionError, did_you_mean, shortened, shown

Self = TypeVar("Self", bound="Configurable")
ELSEWHERE = {
    "desc_act": "act_order", "actorder": "act_order", "sym": "symmetric", "percdamp": "damping", "damp_percent": "damping",
    "dampening_frac": "damping", "groupsize": "group_size", "blocksize": "block_size", "q_group_size": "group_size", "nsamples": "samples",
    "num_samples": "samples", "num_calibration_samples": "samples", "seqlen": "length", "max_seq_length": "length",
}  # fmt: skip
"""Options by the names that they have in AutoGPTQ, GPTQModel, llm-compressor and the code of the papers."""


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Configurable:
    """A frozen, keyword-only dataclass. A command line sets its fields by name.

    Subclasses need no decorator: every annotated attribute that is not a ``ClassVar`` becomes an option, and must have a default.
    """

    name: ClassVar[str]
    """The name that users type, such as ``wanda``."""
    kind: ClassVar[str] = "option"  # the word for it in errors, and the prefix of its options
    requires: ClassVar[tuple[str, ...]] = ()
    """Names of distributions whose version changes what the method computes, such as ``("sparseml",)``. Their versions become part of the
    fingerprint."""
    paper: ClassVar[str] = ""
    """A link to the paper, for ``harness-ext pruners``. By default the arXiv numbers in the docstring of the class or of its module."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclasses.dataclass(frozen=True, kw_only=True)(cls)

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """The options and their default values."""
        return {
            field.name: field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
            for field in dataclasses.fields(cls)  # type: ignore[arg-type]
        }

    def options(self) -> dict[str, Any]:
        """The options and their values."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]

    @classmethod
    def from_options(cls: type[Self], options: Mapping[str, Any]) -> Self:
        """Builds an instance and checks the name and the type of each option.

        Raises:
            BadOptionError: an unknown option, a value of the wrong type, or a value that ``__post_init__`` refuses by a ValueError.
        """
        defaults = cls.defaults()
        hints = typing.get_type_hints(cls)
        for option, value in options.items():
            if option not in defaults:
                takes = ", ".join(f"{name}={default!r}" for name, default in defaults.items()) or "no options"
                raise BadOptionError(
                    f"{cls.kind} {cls.name!r} has no option {shown(option)}.{nearest_option(option, defaults)} It takes: {takes}"
                )
            if not _is_a(value, hints[option]):
                words = [
                    word for part in _parts(hints[option]) if typing.get_origin(part) is typing.Literal for word in typing.get_args(part)
                ]
                hint = did_you_mean(value, words) if isinstance(value, str) else ""
                wanted = " or ".join(_in_words(part) for part in _parts(hints[option]))
                raise BadOptionError(
                    f"{cls.kind}.{shortened(option)}={shown(value)}: {cls.kind} {cls.name!r} wants {wanted} here{'.' if hint else ''}{hint}"
                )
        try:
            return cls(**options)
        except BadOptionError:
            raise
        except ValueError as error:
            raise BadOptionError(f"{cls.kind} {cls.name!r}: {error}") from error


def nearest_option(option: str, options: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` for the option that another tool calls so, or for the nearest name; or nothing."""
    names = list(options)
    same = ELSEWHERE.get(option.lower())
    return f" Did you mean {same!r}?" if same in names else did_you_mean(option, names)


def _parts(hint: Any) -> Sequence[Any]:
    """The types of a union; another type alone."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _in_words(hint: Any) -> str:
    """``int``, or the values of a ``Literal``."""
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(repr(value) for value in typing.get_args(hint))
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def _is_a(value: Any, hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_is_a(value, choice) for choice in typing.get_args(hint))
    if origin is typing.Literal:
        return value in typing.get_args(hint)
    if isinstance(value, bool) and hint in (int, float):
        return False
    if hint is float:
        return isinstance(value, (int, float))
    kind = origin or hint
    return isinstance(value, kind) if isinstance(kind, type) and kind is not Any else True
