"""The rules of all plugins, as tests."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from harness_ext.engine.global_state import kept_generators
from harness_ext.testing.contracts import given
from harness_ext.testing.contracts.given import fail, told_in_one_line


class PluginContract(ABC):
    """Tests that pruners, allocations and calibration sources share."""

    options: Mapping[str, Any] = {}
    """Options of the plugin, for a class or a name."""

    def test_it_has_a_name_and_a_docstring_and_overrides_a_method(self) -> None:
        plugin = self._plugin()
        with told_in_one_line():
            plugin.check_class()
        given.check_description(plugin)

    def test_its_options_are_checked_and_come_back(self) -> None:
        given.check_options(self._plugin())

    @abstractmethod
    def _plugin(self) -> Any:
        """The plugin under test."""

    def _who(self) -> str:
        plugin = self._plugin()
        return f"{plugin.kind} {plugin.name!r}"

    @contextmanager
    def _own_generators(self, seed: int) -> Iterator[None]:
        """A context with seeded global random generators. The test fails if the plugin uses them."""
        with kept_generators(seed), told_in_one_line():
            before = given.generator_states()
            yield
            self._check_generators(before)

    def _check_generators(self, before: tuple[Any, ...]) -> None:
        if given.generator_states() != before:
            fail(f"{self._who()}: it used or seeded a global random generator: make a torch.Generator of your own")
