"""Finds plugins and what they register. A plugin that fails to load is kept, and named when a name is not found."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import Distribution, EntryPoint, PackageNotFoundError, entry_points, requires
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pluggy

from harness_ext import hookspecs
from harness_ext.errors import HarnessExtError, PluginError, UnknownNameError, did_you_mean, one_line, shown, with_type
from harness_ext.hookspecs import NAME
from harness_ext.method.options import Configurable
from harness_ext.method.source_code import check_requires

if TYPE_CHECKING:
    from harness_ext.method.allocation import Allocation
    from harness_ext.method.calibration import Calibration
    from harness_ext.method.pruner import PruningMethod

T = TypeVar("T")
C = TypeVar("C", "PruningMethod", "Calibration", "Allocation")
HOOKS = ("register_pruners", "register_calibrations", "register_allocations", "register_models", "register_tasks")


@dataclass(frozen=True)
class Origin:
    """The entry point of a plugin and the distribution that declares it."""

    entry_point: str
    module: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


@dataclass(frozen=True)
class Broken:
    """A plugin, or a part of one, that failed, and the reason."""

    origin: Origin
    reason: str

    def __str__(self) -> str:
        return f"{self.origin} ({self.origin.entry_point}): {self.reason}"


@dataclass
class Registry(Generic[T]):
    """What plugins registered of one kind, by name."""

    kind: str
    items: dict[str, tuple[T, Origin]] = field(default_factory=dict)
    broken: list[Broken] = field(default_factory=list)

    def add(self, name: str, item: T, origin: Origin) -> None:
        if name in self.items:
            raise PluginError(
                f"the {self.kind} name {shown(name)} is already taken by {self.items[name][1]} ({self.items[name][1].entry_point})"
            )
        self.items[name] = (item, origin)

    def get(self, name: str) -> tuple[T, Origin]:
        """The item of that name and its origin.

        Raises:
            UnknownNameError: there is none. The message has the nearest name, all names, what is not installed, and the plugins that failed
                to load.
        """
        if name in self.items:
            return self.items[name]
        absent = self.not_installed()
        here = [other for other in self.items if other not in absent]
        hint = (
            did_you_mean(name, here) or did_you_mean(name.lower(), here) or did_you_mean(name, absent) or did_you_mean(name.lower(), absent)
        )
        available = ", ".join(sorted(here)) or "none"
        by_command: dict[str, list[str]] = {}
        for other, command in sorted(absent.items()):
            by_command.setdefault(command, []).append(other)
        if by_command:
            available += ". Not installed: " + "; ".join(f"{', '.join(others)} ({command})" for command, others in by_command.items())
        failed = f". Not loaded: {'; '.join(map(str, self.broken))}" if self.broken else ""
        raise UnknownNameError(f"no {self.kind} named {shown(name)}.{hint} Available: {available}{failed}")

    def not_installed(self) -> dict[str, str]:
        """The methods that need a library which is not installed, and what to do about it."""
        from harness_ext.method.listing import missing

        found = {}
        for name, (item, origin) in self.items.items():
            if isinstance(item, type) and issubclass(item, Configurable) and (absent := missing(item)):
                found[name] = how_to_install(origin.distribution, absent)
        return found


class Plugins:
    """All plugins of an environment. The constructor imports them; instances share nothing.

    Args:
        found: pairs of an entry point and its distribution. By default all of the group ``harness_ext``.
        hooks: names in ``HOOKS`` of the hooks to call, by default all. What the others register is left out. For models and tasks alone, no
            built-in plugin imports torch.
    """

    def __init__(self, found: Iterator[tuple[EntryPoint, Distribution]] | None = None, hooks: Collection[str] = HOOKS) -> None:
        self._hooks = hooks
        self.broken: list[Broken] = []
        self.origins: dict[str, Origin] = {}
        self.pruners: Registry[type[PruningMethod]] = Registry("pruner", broken=self.broken)
        self.calibrations: Registry[type[Calibration]] = Registry("calibration", broken=self.broken)
        self.allocations: Registry[type[Allocation]] = Registry("allocation", broken=self.broken)
        self.models: Registry[Path] = Registry("model", broken=self.broken)
        self.how_to_get: dict[str, str] = {}  # commands that bring the folders of models
        self.task_folders: list[tuple[Path, Origin]] = []
        self.manager = pluggy.PluginManager(NAME)
        self.manager.add_hookspecs(hookspecs)
        described: dict[Distribution, tuple[str, str]] = {}
        for entry_point, distribution in discover() if found is None else found:
            if distribution not in described:
                described[distribution] = _name_and_version(distribution)
            self._load(entry_point, Origin(entry_point.name, entry_point.value, *described[distribution]))

    def _load(self, entry_point: EntryPoint, origin: Origin) -> None:
        plugin_name = f"{origin.distribution}:{entry_point.name}"
        try:
            plugin = entry_point.load()
            self.manager.register(plugin, plugin_name)
            self._check(plugin)
        except (Exception, SystemExit) as error:  # a broken plugin must not stop a run that does not use it
            self._reject(plugin_name, origin, error)
            return
        self.origins[plugin_name] = origin
        others = [other for other in self.manager.get_plugins() if other is not plugin]
        registrations: dict[str, Callable[..., None]] = {
            "register_pruners": partial(self._add_pruner, origin),
            "register_calibrations": partial(self._add_calibration, origin),
            "register_allocations": partial(self._add_allocation, origin),
            "register_models": partial(self._add_model, origin),
            "register_tasks": lambda path: self.task_folders.append((_folder(path), origin)),
        }
        for hook, register in [(hook, registrations[hook]) for hook in self._hooks]:
            try:
                self.manager.subset_hook_caller(hook, others)(register=register)
            except (Exception, SystemExit) as error:
                self.broken.append(Broken(origin, _explain(error)))

    # The base classes are imported here, because they bring torch: lists of models and of tasks need none.

    def _add_pruner(self, origin: Origin, pruner: Any) -> None:
        from harness_ext.method.pruner import PruningMethod

        self.pruners.add(*_named(pruner, PruningMethod), origin)

    def _add_calibration(self, origin: Origin, calibration: Any) -> None:
        from harness_ext.method.calibration import Calibration

        self.calibrations.add(*_named(calibration, Calibration), origin)

    def _add_allocation(self, origin: Origin, allocation: Any) -> None:
        from harness_ext.method.allocation import Allocation

        self.allocations.add(*_named(allocation, Allocation), origin)

    def _add_model(self, origin: Origin, name: str, path: Path, how_to_get: str = "") -> None:
        self.models.add(name, Path(path), origin)
        self.how_to_get[name] = how_to_get

    def _check(self, plugin: Any) -> None:
        """Refuses misspelt hooks and plugins without a hook. pluggy accepts both silently."""
        callers = self.manager.get_hookcallers(plugin) or []
        known = sorted(hook for hook in vars(hookspecs) if hasattr(getattr(hookspecs, hook), f"{NAME}_spec"))
        for caller in callers:
            if caller.name not in known:
                raise PluginError(f"{caller.name!r} is not a hook.{did_you_mean(caller.name, known)} Hooks: {', '.join(known)}")
        self.manager.check_pending()
        if not callers:
            raise PluginError(f"{_name_of(plugin)} implements no hook. Is @harness_ext.hookimpl missing?")

    def _reject(self, plugin_name: str, origin: Origin, error: BaseException) -> None:
        if self.manager.has_plugin(plugin_name):
            self.manager.unregister(name=plugin_name)
        self.broken.append(Broken(origin, _explain(error)))


def discover() -> Iterator[tuple[EntryPoint, Distribution]]:
    """All entry points of the group ``harness_ext``: ours first, then in the order of the names of their distributions."""
    found = [(entry_point, entry_point.dist) for entry_point in entry_points(group=NAME)]
    names: dict[Distribution, str] = {}
    for _, dist in found:
        if dist is not None and dist not in names:
            names[dist] = _name_and_version(dist)[0]
    named = {(names[dist], entry_point.name): (entry_point, dist) for entry_point, dist in found if dist is not None}
    for key in sorted(named, key=lambda key: (key[0] != "lm-eval-pruned", key)):
        yield named[key]


def _name_and_version(distribution: Distribution) -> tuple[str, str]:
    """Each of the two parses the whole ``METADATA``, README included."""
    return distribution.metadata["Name"], distribution.version


def how_to_install(distribution: str, absent: Sequence[str]) -> str:
    """The command that brings distributions that a plugin needs: an extra of the plugin's distribution, if it declares them in one."""
    try:
        declared = requires(distribution) or []
    except PackageNotFoundError:
        declared = []
    words = []
    for name in absent:
        pattern = re.compile(rf"{re.sub('[-_.]+', '[-_.]+', name)}\b(?![-_.]).*extra\s*==\s*['\"]([^'\"]+)['\"]", re.IGNORECASE)
        extra = next((match[1] for line in declared if (match := pattern.match(line))), None)
        words.append(f"'{distribution}[{extra}]'" if extra else shlex.quote(name))
    return f"pip install {' '.join(dict.fromkeys(words))}"


def _named(item: Any, base: type[C]) -> tuple[str, type[C]]:
    """Checks that a plugin registered a usable class, and returns the name and the class."""
    if not (inspect.isclass(item) and issubclass(item, base)):
        raise PluginError(f"register() wants a subclass of {base_names(base)}, not {shown(item)}")
    name = getattr(item, "name", None)
    if not isinstance(name, str) or not name:
        raise PluginError(f"{item.__qualname__} has no name: set the class attribute name = '...'")
    item.check_class()
    check_requires(item)
    return name, item


def base_names(base: type[Any]) -> str:
    """The public classes that a plugin may derive from where ``base`` is wanted, for errors."""
    from harness_ext.method.pruner import BASES, PruningMethod

    return BASES if base is PruningMethod else f"harness_ext.{base.__name__}"


def _folder(path: Any) -> Path:
    folder = Path(path)
    if not folder.is_dir():
        raise PluginError(f"register_tasks: {folder} is not a folder")
    return folder


def _name_of(plugin: Any) -> str:
    return plugin.__name__ if isinstance(plugin, ModuleType) else repr(plugin)


def _explain(error: BaseException) -> str:
    return one_line(error, whole=True) if isinstance(error, HarnessExtError) else with_type(error)
