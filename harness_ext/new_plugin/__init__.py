"""``harness-ext new-plugin``: writes a package with a plugin, a test that passes, and a README."""

from __future__ import annotations

import re
from collections.abc import Collection
from importlib import metadata
from pathlib import Path

from harness_ext.atomic import whole_folder, writing
from harness_ext.errors import BadOptionError, did_you_mean, shortened, shown

KINDS = ("pruner", "allocation", "calibration", "tasks")
PREFIX = "harness-ext-"
LONGEST = 40
TEMPLATES = Path(__file__).parent / "templates"
COMMON = ("pyproject.toml", "README.md")


def write(name: str, kind: str, out: Path) -> Path:
    """Writes the folder ``harness-ext-NAME`` below ``out``, whole or not at all.

    Args:
        name: the name that users type, such as ``first-columns``.
        kind: one of ``KINDS``.
        out: an existing folder.

    Returns:
        the new folder.

    Raises:
        BadOptionError: the name cannot be used or is taken, the kind is unknown, or the folder exists.
        WriteError: the disk is full, or the file system refuses.
    """
    if kind not in KINDS:
        raise BadOptionError(f"--kind {shortened(kind)}: want {', '.join(KINDS)}.{did_you_mean(kind, KINDS)}")
    check_name(name, kind, _taken(kind))
    folder = out / f"{PREFIX}{name}"
    if folder.exists():
        raise BadOptionError(f"{folder} exists: want a new folder; --out DIR writes somewhere else")
    files = render(name, kind)
    with whole_folder(folder) as part, writing(folder):
        for path, text in files.items():
            (part / path).parent.mkdir(parents=True, exist_ok=True)
            (part / path).write_text(text, encoding="utf-8")
    return folder


def check_name(name: str, kind: str, taken: Collection[str]) -> None:
    """Refuses names that cannot be typed, imported or registered.

    Args:
        taken: the names of this kind that plugins have registered.

    Raises:
        BadOptionError: with the nearest usable name, if there is one.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or name.startswith(PREFIX) or len(name) > LONGEST:
        near = nearest(name)
        hint = f" Did you mean {near!r}?" if near else ""
        raise BadOptionError(
            f"new-plugin {shown(name)}: want a lower-case letter, then letters and digits with single dashes between them, at most "
            f"{LONGEST} characters; the package is called {PREFIX}NAME.{hint}"
        )
    own = {name, name.replace("-", "_")}
    if clash := own & set(taken):
        raise BadOptionError(
            f"new-plugin {shown(name)}: there is a {kind.rstrip('s')} named {shown(clash.pop())} already. Did you mean 'my-{name}'?"
        )


def nearest(name: str) -> str:
    """The name in lower case, with one dash in place of all other characters. Empty if no letter is left."""
    words = re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower().removeprefix(PREFIX))
    while words and not words[0][0].isalpha():
        words[0] = words[0].lstrip("0123456789")
        words = [word for word in words if word]
    return "-".join(words)[:LONGEST].rstrip("-")


def render(name: str, kind: str) -> dict[str, str]:
    """The texts of the files of a package, by their paths in its folder."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    module = f"{PREFIX}{name}".replace("-", "_")
    values = {
        "name": name,
        "kind": kind,
        "kinds": kind if kind == "tasks" else f"{kind}s",
        "package": f"{PREFIX}{name}",
        "module": module,
        "task": name.replace("-", "_"),
        "class_name": "".join(word.capitalize() for word in name.split("-")),
        "host_version": metadata.version("lm-eval-pruned"),
    }
    loader = FileSystemLoader([TEMPLATES / kind, TEMPLATES])
    environment = Environment(loader=loader, undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True)
    own = [path.relative_to(TEMPLATES / kind).as_posix().removesuffix(".jinja") for path in (TEMPLATES / kind).rglob("*.jinja")]
    paths = sorted({*own, *COMMON})
    return {
        path.replace("MODULE", module).replace("TASK", values["task"]): environment.get_template(f"{path}.jinja").render(values)
        for path in paths
    }


def _taken(kind: str) -> set[str]:
    """The registered names of this kind."""
    from harness_ext.plugins import Plugins

    plugins = Plugins()
    if kind == "tasks":
        return {file.stem for folder, _ in plugins.task_folders for file in folder.rglob("*.yaml")}
    names: dict[str, Collection[str]] = {
        "pruner": plugins.pruners.items,
        "allocation": plugins.allocations.items,
        "calibration": plugins.calibrations.items,
    }
    return set(names[kind])
