"""Finds the folder of a model, or its name on the hub."""

from __future__ import annotations

import json
import os
from pathlib import Path

from harness_ext.errors import LONGEST, BadOptionError, PluginError, did_you_mean, shortened, shown
from harness_ext.plugins import Plugins


def registered_folder(plugins: Plugins, name: str) -> str:
    """The folder of a registered model.

    Raises:
        UnknownNameError: there is no such name.
        BadOptionError: the folder does not exist yet; the message has the command that writes it.
        PluginError: the folder does not exist, and the plugin names no command.
    """
    folder, origin = plugins.models.get(name)
    if not folder.is_dir():
        if command := plugins.how_to_get.get(name):
            raise BadOptionError(f"pretrained={shown(name)} is not on this machine yet: run {command}, which writes {folder}")
        raise PluginError(f"pretrained={shown(name)}: {origin} registers it as {folder}, where there is no folder")
    return str(folder)


def model_folder(plugins: Plugins, pretrained: str, gguf_file: str | None = None) -> str:
    """The folder of a registered model or at a path, or a name on the hub.

    Args:
        pretrained: a registered name, a path, or a name on the hub.
        gguf_file: name of a file in the folder with configuration and weights.

    Raises:
        PluginError: the folder of a registered model does not exist.
        BadOptionError: the name is a path without a folder, or is nearly a registered name.
    """
    if pretrained in plugins.models.items:
        return registered_folder(plugins, pretrained)
    path, called = Path(pretrained).expanduser(), f"--pretrained {shortened(pretrained)}"
    if os.path.isdir(path):
        if not gguf_file and not (path / "config.json").is_file():
            files = sorted(file.name for file in path.glob("*.gguf"))
            hint = f"; for {files[0]} give --gguf-file" if files else _of_adapter(path)
            raise BadOptionError(f"{called}: there is no config.json in this folder{hint}")
        return str(path)
    if did_you_mean(pretrained, plugins.models.items) or is_path(pretrained):
        raise no_such_model(plugins, pretrained, called)
    return pretrained


def _of_adapter(folder: Path) -> str:
    """What to do with a folder of an adapter, for an error; empty for other folders."""
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    base = shortened(config.get("base_model_name_or_path") or "BASE") if isinstance(config, dict) else "BASE"
    return (
        f"; it is an adapter of {base}: merge it into the weights first (merge_and_unload of peft), "
        f"or use lm_eval --model pruned-hf --model_args pretrained={base},peft={shortened(folder)}"
    )


def is_path(pretrained: str) -> bool:
    """Whether a name can only be a path."""
    return pretrained.startswith((".", "/", "~")) or pretrained.count("/") > 1 or len(pretrained) > LONGEST


def no_such_model(plugins: Plugins, pretrained: str, called: str) -> BadOptionError:
    """The error for a name without a folder.

    Args:
        called: the argument as the user wrote it.
    """
    return BadOptionError(
        f"{called}: no such folder, and neither a registered model ({', '.join(sorted(plugins.models.items))}) nor "
        f"a name on the hub.{did_you_mean(pretrained, plugins.models.items)}"
    )
