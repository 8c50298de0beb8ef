"""Adapters of the ``peft`` library. Before pruning, an adapter is merged into the weights of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness_ext.errors import BadOptionError, UnsupportedModelError, one_line, shown
from harness_ext.extras import require_extra

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def check_adapter(peft: str, revision: str | None = None) -> None:
    """Checks the configuration of an adapter before the model is loaded.

    Args:
        peft: a folder or a name on the hub.

    Raises:
        MissingExtraError: ``peft`` is not installed.
        BadOptionError: there is no adapter, or it cannot be merged into weights, such as a soft prompt.
    """
    require_extra("peft", f"peft={shown(peft)}")
    from peft import PeftConfig  # type: ignore[import-not-found, unused-ignore]

    try:
        config = PeftConfig.from_pretrained(peft, revision=revision)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BadOptionError(f"peft={shown(peft)}: no adapter can be read there: {one_line(error)}") from error
    if config.is_prompt_learning or config.is_adaption_prompt:
        kind = getattr(config.peft_type, "value", config.peft_type)
        raise BadOptionError(f"peft={shown(peft)} with sparsity above 0: {kind} cannot be merged into the weights: want LoRA or the like")


def merged(model: Any, peft: str) -> PreTrainedModel:
    """Merges the adapter into the weights of the model, and removes it, as ``peft`` does.

    Args:
        model: a ``peft.PeftModel``; its weights change.
        peft: the argument of the user, for errors.

    Raises:
        UnsupportedModelError: the adapter cannot be merged.
    """
    try:
        plain: PreTrainedModel = model.merge_and_unload()
    except (AttributeError, NotImplementedError, ValueError) as error:
        raise UnsupportedModelError(f"peft={shown(peft)}: cannot be merged into the weights: {one_line(error)}") from error
    return plain
