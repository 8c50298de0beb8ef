"""Checks that a tokenizer has the chat template that was asked for."""

from __future__ import annotations

from typing import Any

from harness_ext.errors import BadOptionError, did_you_mean, shown

OPTION = "--apply_chat_template"


def check_chat_template(tokenizer: Any, asked: bool | str | None) -> None:
    """Checks what ``--apply_chat_template`` asks for.

    Args:
        tokenizer: of transformers; None where a model has none.
        asked: false for no template, true for the tokenizer's own, or the name of one of several.

    Raises:
        BadOptionError: the tokenizer has no template, none of this name, or several of which lm-eval would not apply the one asked for.
    """
    if not asked or tokenizer is None:
        return
    template = getattr(tokenizer, "chat_template", None)
    if not template:
        raise BadOptionError(f"{OPTION}: the tokenizer of this model has no chat template: want a chat model")
    if not isinstance(template, dict):
        return
    names = ", ".join(sorted(template))
    only = "lm-eval applies the one called default, whatever name it is given: make it the only chat_template of the tokenizer"
    if isinstance(asked, str) and asked not in template:
        raise BadOptionError(
            f"{OPTION} {shown(asked)}: the tokenizer has no template of this name: want one of {names}.{did_you_mean(asked, template)}"
        )
    if "default" not in template:
        raise BadOptionError(f"{OPTION}: the tokenizer has the templates {names}, and none is called default; {only}")
    if isinstance(asked, str) and asked != "default":
        raise BadOptionError(f"{OPTION} {shown(asked)}: {only}")
