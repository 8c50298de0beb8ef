"""From the name of a model to its folder, or to its name on the hub."""

from __future__ import annotations

import os
from pathlib import Path

from harness_ext.errors import LONGEST, BadOptionError, PluginError, did_you_mean, shortened, shown
from harness_ext.plugins import Plugins


def registered_folder(plugins: Plugins, name: str) -> str:
    """The folder of a registered name.

    Raises:
        UnknownNameError: no such name.
        BadOptionError: the folder is not there yet; names the command that brings it.
        PluginError: the folder is not there, and the plugin names no command.
    """
    folder, origin = plugins.models.get(name)
    if not folder.is_dir():
        if command := plugins.how_to_get.get(name):
            raise BadOptionError(f"pretrained={shown(name)} is not on this machine yet: run {command}, which writes {folder}")
        raise PluginError(f"pretrained={shown(name)}: {origin} registers it as {folder}, where there is no folder")
    return str(folder)


def model_folder(plugins: Plugins, pretrained: str, gguf_file: str | None = None) -> str:
    """The folder of a registered name, the folder given, or a name on the hub.

    Args:
        gguf_file: the file in the folder that holds configuration and weights.

    Raises:
        PluginError: a registered name whose folder is not there.
        BadOptionError: what looks like a path, and is no folder.
    """
    if pretrained in plugins.models.items:
        return registered_folder(plugins, pretrained)
    path, called = Path(pretrained).expanduser(), f"--pretrained {shortened(pretrained)}"
    if os.path.isdir(path):
        if not gguf_file and not (path / "config.json").is_file():
            files = sorted(file.name for file in path.glob("*.gguf"))
            hint = f"; for {files[0]} give --gguf-file" if files else ""
            raise BadOptionError(f"{called}: there is no config.json in this folder{hint}")
        return str(path)
    if did_you_mean(pretrained, plugins.models.items) or is_path(pretrained):
        raise no_such_model(plugins, pretrained, called)
    return pretrained


def is_path(pretrained: str) -> bool:
    """Whether a name can only be meant as the path of a folder."""
    return pretrained.startswith((".", "/", "~")) or pretrained.count("/") > 1 or len(pretrained) > LONGEST


def no_such_model(plugins: Plugins, pretrained: str, called: str) -> BadOptionError:
    """The error for a name that is no folder.

    Args:
        called: the argument as the user wrote it.
    """
    return BadOptionError(
        f"{called}: no such folder, and neither a registered model ({', '.join(sorted(plugins.models.items))}) nor "
        f"a name on the hub.{did_you_mean(pretrained, plugins.models.items)}"
    )
