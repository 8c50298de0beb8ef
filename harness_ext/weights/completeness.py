"""Whether a checkpoint holds the weights of its model: what is refused, whoever reads the files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from harness_ext.errors import UnsupportedModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SHOWN = 3  # names in a message
Shape = tuple[int, ...]


def refuse_missing(where: object, model: PreTrainedModel, missing: Iterable[str]) -> None:
    """Refuses a checkpoint without some of the weights, which transformers would draw at random.

    Args:
        where: the checkpoint, as the user calls it.
        missing: names in the model.

    Raises:
        UnsupportedModelError: there are some; names a few, and how many others.
    """
    if names := sorted(missing):
        raise UnsupportedModelError(f"{where}: the files do not hold {some(names)} of {type(model).__name__}")


def refuse_shapes(where: object, shapes: Mapping[str, tuple[Shape, Shape]]) -> None:
    """Refuses a checkpoint with weights of other shapes than the model's.

    Args:
        shapes: by the names of those that do not fit, the shape in the files and the shape in the model.

    Raises:
        UnsupportedModelError: there are some.
    """
    if shapes:
        name = min(shapes)
        stored, wanted = shapes[name]
        rest = others(len(shapes) - 1, "tensors do not fit")
        raise UnsupportedModelError(f"{where}: {name} is {tuple(stored)}, the model wants {tuple(wanted)}{rest}")


def some(names: list[str]) -> str:
    """A few of the names, and how many others there are."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} others" if len(names) > SHOWN else "")


def others(count: int, what: str) -> str:
    """How many others there are, to end a message with; nothing where there are none."""
    return f"; {count} other {what}" if count else ""
