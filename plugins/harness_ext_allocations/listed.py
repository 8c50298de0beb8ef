"""Sparsities that the user lists."""

from __future__ import annotations

import difflib
import fnmatch
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from harness_ext import Allocation, BadOptionError, LayerShape, PruningMethod, Sparsity, one_line, rounding_slack, shown

SUFFIXES = (".json", ".yaml", ".yml")


class Listed(Allocation):
    """Takes the sparsities from a JSON or YAML file: a list, with one entry for each decoder block, or a mapping from layers to entries.

    An entry is a ratio, or a pattern such as ``"2:4"``, also where the sparsity that was asked for is a ratio. Where a pattern ``n:m`` was
    asked for, a ratio stands for the pattern of the same ``m`` with that ratio. What the entries add up to must be what was asked for: of
    all layers, or of those whose entry is not 0. Layers with the entry 0 are then left out.

    The keys of a mapping are full names of layers, or globs over them such as ``"*.q_proj"``. A name goes before a glob, and of several
    globs the first that matches counts. Every layer must have an entry, and every key must decide about at least one layer.
    """

    name: ClassVar[str] = "list"
    path: str = ""

    def check(self, pruner: PruningMethod) -> None:
        self._entries()

    def spread(self, sparsity: Sparsity, layers: Sequence[LayerShape], measured: Mapping[int, Any]) -> Mapping[str, float | Sparsity]:
        """What the file says.

        Raises:
            BadOptionError: a layer without an entry, an entry without a layer, a ratio that is none of the pattern, or another total.
        """
        entries = self._entries()
        by_layer = self._of_blocks(entries, layers) if isinstance(entries, list) else self._of_names(entries, layers)
        sparsities = {name: self._of_pattern(name, entry, sparsity) for name, entry in by_layer.items()}
        self._check_total(sparsities, sparsity, layers)
        return sparsities

    @property
    def _option(self) -> str:
        return f"allocation.path={shown(self.path)}"

    def _entries(self) -> list[Sparsity] | dict[str, Sparsity]:
        if not self.path:
            raise BadOptionError("allocation=list wants allocation.path=FILE, a JSON or YAML file")
        file = Path(self.path).expanduser()
        if not os.path.isfile(file):
            raise BadOptionError(f"{self._option}: no such file")
        if file.suffix not in SUFFIXES:
            raise BadOptionError(f"{self._option}: want a file of JSON or YAML, with one of the suffixes {', '.join(SUFFIXES)}")
        try:
            content = _read(file)
        except UnicodeDecodeError as error:
            raise BadOptionError(f"{self._option}: not UTF-8 text ({error.reason} at byte {error.start})") from error
        except ValueError as error:
            raise BadOptionError(f"{self._option}: {error}") from error
        if not isinstance(content, (list, dict)) or not content:
            raise BadOptionError(f"{self._option}: want a list with an entry for each block, or a mapping from layers to entries")
        if isinstance(content, list):
            return [self._parse(f"block {number}", entry) for number, entry in enumerate(content)]
        for key in content:
            if not isinstance(key, str):
                raise BadOptionError(f"{self._option}: the key {key!r} is not a text: want names of layers, or globs such as '*.q_proj'")
        return {key: self._parse(key, entry) for key, entry in content.items()}

    def _parse(self, where: str, entry: Any) -> Sparsity:
        try:
            return Sparsity.parse(entry)
        except BadOptionError as error:
            raise BadOptionError(f"{self._option}, {where}: {error}") from error

    def _of_blocks(self, entries: Sequence[Sparsity], layers: Sequence[LayerShape]) -> dict[str, Sparsity]:
        blocks = 1 + max(layer.block for layer in layers)
        if len(entries) != blocks:
            raise BadOptionError(
                f"{self._option}: the list has {len(entries)} entries, the layers to be pruned are in {blocks} blocks, 0 to {blocks - 1}"
            )
        return {layer.name: entries[layer.block] for layer in layers}

    def _of_names(self, entries: Mapping[str, Sparsity], layers: Sequence[LayerShape]) -> dict[str, Sparsity]:
        keys = {layer.name: _key_for(layer.name, entries) for layer in layers}
        for key in entries:
            if key not in keys.values():
                raise BadOptionError(f"{self._option}: {_why_unused(key, entries, list(keys))}")
        if missing := [name for name, key in keys.items() if key is None]:
            more = f" and {len(missing) - 1} other layers" if len(missing) > 1 else ""
            raise BadOptionError(f"{self._option}: no entry for {missing[0]}{more}; a last entry '*' would be for all that are left")
        return {name: entries[key] for name, key in keys.items() if key is not None}

    def _of_pattern(self, name: str, entry: Sparsity, asked: Sparsity) -> Sparsity:
        """A ratio as a pattern of the ``m`` that was asked for."""
        if asked.pattern is None or entry.pattern is not None or entry.ratio == 0:
            return entry
        m = asked.pattern[1]
        n = round(entry.ratio * m)
        if not 0 < n < m or abs(entry.ratio * m - n) > 1e-6:
            raise BadOptionError(
                f"{self._option}: {entry} for {name} with sparsity={asked}: want a multiple of 1/{m}, such as {asked.ratio:g}, or a pattern"
            )
        return Sparsity(n / m, (n, m))

    def _check_total(self, given: Mapping[str, Sparsity], asked: Sparsity, layers: Sequence[LayerShape]) -> None:
        kept = [layer for layer in layers if given[layer.name].ratio > 0]
        if not (_adds_up(given, asked, layers) or (kept and _adds_up(given, asked, kept))):
            ratio = sum(given[layer.name].ratio * layer.size for layer in layers) / sum(layer.size for layer in layers)
            how = f"write ratios as patterns of {asked.pattern[1]} and " if asked.pattern else ""
            raise BadOptionError(
                f"{self._option}: the list adds up to {ratio:.6g} of the weights, not to sparsity={asked}; {how}say sparsity={ratio:.6g}"
            )


def _adds_up(given: Mapping[str, Sparsity], asked: Sparsity, layers: Sequence[LayerShape]) -> bool:
    removed = sum(given[layer.name].removed_of(layer.size) for layer in layers)
    wanted = sum(asked.removed_of(layer.size) for layer in layers)
    return abs(removed - wanted) <= rounding_slack(len(layers), wanted)


def _read(file: Path) -> Any:
    """The content of a JSON or YAML file.

    Raises:
        ValueError: it is neither, or a key is there twice.
    """
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".json":
        try:
            return json.loads(text, object_pairs_hook=_unique)
        except json.JSONDecodeError as error:
            raise ValueError(f"not JSON ({error.msg} in line {error.lineno})") from error
        except RecursionError as error:
            raise ValueError("nested too deep") from error
    import yaml  # type: ignore[import-untyped]

    try:
        node = yaml.compose(text, yaml.SafeLoader)
        if isinstance(node, yaml.MappingNode):
            _unique([(key.value, None) for key, _ in node.value if isinstance(key, yaml.ScalarNode)])
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = one_line(error)
        raise ValueError(f"not YAML ({reason})" + ("; quote keys that begin with *" if "alias" in reason else "")) from error
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for key, value in pairs:
        if key in entries:
            raise ValueError(f"the key {key!r} is there twice")
        entries[key] = value
    return entries


def _key_for(name: str, entries: Iterable[str]) -> str | None:
    """The name itself, or the first glob that matches it."""
    if name in entries:
        return name
    return next((key for key in entries if fnmatch.fnmatchcase(name, key)), None)


def _why_unused(key: str, entries: Iterable[str], names: Sequence[str]) -> str:
    """Why a key decides about no layer, and what to write instead."""
    if others := [_key_for(name, entries) for name in names if fnmatch.fnmatchcase(name, key)]:
        return f"{key!r} decides about no layer, since {others[0]!r} goes before it there: put the narrower glob first"
    if any(name.startswith(f"{key}.") for name in names):
        return f"{key!r} is no layer to be pruned; for all layers in it say '{key}.*'"
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.6)
    hint = f"Did you mean {near[0]!r}?" if near else f"The layers are {names[0]!r} to {names[-1]!r}"
    return f"{key!r} is no layer to be pruned, nor a glob that matches one. {hint}"
