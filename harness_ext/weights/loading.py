"""Loads a model with ``from_pretrained``, and refuses one whose weights are not all there."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import torch

from harness_ext.errors import UnsupportedModelError, one_line
from harness_ext.weights.completeness import refuse_missing, refuse_shapes, some
from harness_ext.weights.weight_files import INDEX, SINGLE, stored_files

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load(auto: Any, pretrained: str, *, called: str | None = None, **arguments: Any) -> PreTrainedModel:
    """What ``auto.from_pretrained(pretrained, **arguments)`` returns.

    transformers draws missing weights at random, and logs a table of them.

    Args:
        auto: a class with ``from_pretrained``, such as ``AutoModelForCausalLM``.
        pretrained: a folder, or a name on the hub.
        called: what the user calls the model.

    Raises:
        UnsupportedModelError: weights are missing or have other shapes than the model's, or a file is cut off or not there.
    """
    from safetensors import SafetensorError

    where = called or pretrained
    check_files(Path(pretrained) / arguments.get("subfolder", ""), gguf=bool(arguments.get("gguf_file")))
    with _report_held_back() as reports:
        try:
            model, report = auto.from_pretrained(pretrained, **arguments, output_loading_info=True, ignore_mismatched_sizes=True)
        except torch.OutOfMemoryError:
            raise
        except (SafetensorError, RuntimeError, EOFError, UnpicklingError) as error:
            if names := _not_converted(reports):
                raise UnsupportedModelError(
                    f"{where}: the files do not hold all parts of {some(names)}, or parts of another shape"
                ) from error
            raise UnsupportedModelError(f"{where}: the weights cannot be loaded: {one_line(error)}") from error
        refuse_missing(where, model, report["missing_keys"])
        refuse_shapes(where, {name: (stored, wanted) for name, stored, wanted in report["mismatched_keys"]})
    loaded: PreTrainedModel = model
    return loaded


def check_files(folder: Path, *, gguf: bool = False) -> None:
    """Looks at the safetensors of a folder, where it has some, without reading a weight.

    Raises:
        UnsupportedModelError: a file is cut off, or the index names one that is not there.
    """
    if not gguf and any((folder / name).is_file() for name in (SINGLE, INDEX)):
        stored_files(folder)


class Checked:
    """Stands in the place of an auto class whose ``from_pretrained`` is to be :func:`load`."""

    def __init__(self, auto: Any) -> None:
        self._auto = auto

    def from_pretrained(self, pretrained: str, **arguments: Any) -> PreTrainedModel:
        return load(self._auto, pretrained, **arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._auto, name)


def _not_converted(reports: list[logging.LogRecord]) -> list[str]:
    """The weights, such as those of experts, that transformers could not put together from their parts. Only its table names them."""
    return [name for report in reports for name in re.findall(r"^(\S.*?) *\| *\S*CONVERSION", report.getMessage(), re.MULTILINE)]


@contextmanager
def _report_held_back() -> Iterator[list[logging.LogRecord]]:
    """Keeps the table that transformers logs until it is clear that no error says the same in a line. It is made at any level of logging,
    and shown at the caller's.
    """
    logger = logging.getLogger("transformers.modeling_utils")
    own, wanted = logger.level, logger.getEffectiveLevel()
    held: list[logging.LogRecord] = []

    def hold(record: logging.LogRecord) -> bool:
        report = "LOAD REPORT" in str(record.msg)
        if report:
            held.append(record)
        return not report and record.levelno >= wanted

    logger.addFilter(hold)
    logger.setLevel(min(wanted, logging.WARNING))
    try:
        yield held
    finally:
        logger.removeFilter(hold)
        logger.setLevel(own)
    for record in held:
        if record.levelno >= wanted:
            logger.handle(record)
