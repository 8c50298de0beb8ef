"""From the name of a model to its folder, or to its name on the hub."""

from __future__ import annotations

from pathlib import Path

from harness_ext.errors import BadOptionError, PluginError, did_you_mean
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
            raise BadOptionError(f"pretrained={name!r} is not on this machine yet: run {command}, which writes {folder}")
        raise PluginError(f"pretrained={name!r}: {origin} registers it as {folder}, where there is no folder")
    return str(folder)


def model_folder(plugins: Plugins, pretrained: str) -> str:
    """The folder of a registered name, the folder given, or a name on the hub.

    Raises:
        PluginError: a registered name whose folder is not there.
        BadOptionError: what looks like a path, and is no folder.
    """
    if pretrained in plugins.models.items:
        return registered_folder(plugins, pretrained)
    path = Path(pretrained).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise BadOptionError(f"--pretrained {pretrained}: there is no config.json in this folder")
        return str(path)
    hint = did_you_mean(pretrained, plugins.models.items)
    if hint or pretrained.startswith((".", "/", "~")) or pretrained.count("/") > 1:
        raise BadOptionError(
            f"--pretrained {pretrained}: no such folder, and neither a registered model ({', '.join(sorted(plugins.models.items))}) nor "
            f"a name on the hub.{hint}"
        )
    return pretrained
