"""Options of tasks. They are set by ``--metadata`` or in the YAML of a task, and have the prefix of their family."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from typing_extensions import dataclass_transform

from harness_ext.errors import BadOptionError, did_you_mean, shown

Self = TypeVar("Self", bound="TaskOptions")
MOST_ITEMS = 10**6
LARGEST_SEED = 2**32 - 1  # RandomState takes seeds of 32 bits


def whole(default: int, least: int, most: int) -> Any:
    """A field for an integer from ``least`` to ``most``."""
    return checked(default, lambda name, value: check_whole(name, value, least, most))


def check_whole(name: str, value: Any, least: int, most: int) -> None:
    """Checks that the value of an option is an integer from ``least`` to ``most``.

    Raises:
        BadOptionError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadOptionError(f"{name}={shown(value)}: want an integer")
    if not least <= value <= most:
        raise BadOptionError(f"{name}={value}: want {least} to {most}")


def checked(default: Any, check: Callable[[str, Any], None]) -> Any:
    """A field with its own check. The check gets the name of the option and the value, and raises BadOptionError."""
    return dataclasses.field(default=default, metadata={"check": check})


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(whole, checked))
class TaskOptions:
    """Base class of the options of a family of tasks. Subclasses are frozen dataclasses with fields of :func:`whole` and :func:`checked`.

    Raises:
        BadOptionError: a value is impossible.
    """

    prefix: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclasses.dataclass(frozen=True, kw_only=True)(cls)

    def __post_init__(self) -> None:
        for name, check in self._checks().items():
            check(name, getattr(self, name.removeprefix(self.prefix)))

    def is_set(self, name: str) -> bool:
        """Whether an option has another value than its default."""
        return bool(getattr(self, name) != next(field.default for field in dataclasses.fields(self) if field.name == name))  # type: ignore[arg-type]

    def told(self, name: str) -> str:
        """An option with its value, for a message, such as ``mqar_queries=8 (the default)``."""
        return f"{self.prefix}{name}={shown(getattr(self, name))}{'' if self.is_set(name) else ' (the default)'}"

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names of the options, with the prefix."""
        return tuple(cls._checks())

    @classmethod
    def check_metadata(cls, metadata: Mapping[str, Any]) -> None:
        """Checks each option that begins with the prefix. Other names are ignored, because lm-eval adds model arguments to the metadata.

        Raises:
            BadOptionError: an option does not exist, or a value is impossible.
        """
        checks = cls._checks()
        for name, value in metadata.items():
            if name in checks:
                checks[name](name, value)
            elif name.startswith(cls.prefix):
                raise BadOptionError(f"no option {shown(name)}.{did_you_mean(name, checks)} Options: {', '.join(checks)}")

    @classmethod
    def from_metadata(cls: type[Self], metadata: Mapping[str, Any]) -> Self:
        """Reads the options in the metadata of a task.

        Raises:
            BadOptionError: as :meth:`check_metadata`, or values do not fit together.
        """
        cls.check_metadata(metadata)
        return cls(**{name.removeprefix(cls.prefix): value for name, value in metadata.items() if name in cls._checks()})

    @classmethod
    def _checks(cls) -> dict[str, Callable[[str, Any], None]]:
        return {cls.prefix + field.name: field.metadata["check"] for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
