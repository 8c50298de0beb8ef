"""A plugin is a module that implements at least one of these hooks. An entry point of the group ``harness_ext`` names the module:

.. code-block:: toml

    [project.entry-points.harness_ext]
    my-plugin = "my_package.my_module"

Hooks may be called several times in a process, and only those that are needed: a list of models or of tasks asks for no pruners.
A plugin that imports its pruners within the hook, as the built-in ones do, keeps torch out of such a list. A hook may call
``register`` any number of times. If a name is already taken, ``register`` raises an error that names the owner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness_ext.method.allocation import Allocation
    from harness_ext.method.calibration import Calibration
    from harness_ext.method.pruner import PruningMethod

NAME = "harness_ext"
hookspec = pluggy.HookspecMarker(NAME)
hookimpl = pluggy.HookimplMarker(NAME)
"""Marks a function as the implementation of the hook of that name, as a decorator."""


@hookspec
def register_pruners(register: Callable[[type[PruningMethod]], None]) -> None:
    """Registers pruning methods. Users choose one by ``pruner=<name>``.

    :param register: Call this with each class. The class is a subclass of :class:`harness_ext.Pruner`, :class:`harness_ext.ModelPruner`,
        :class:`harness_ext.StructuredPruner` or :class:`harness_ext.Quantizer`. Its ``name`` is the name that users type.

    .. code-block:: python

        from harness_ext import Pruner, hookimpl

        class LastColumns(Pruner):
            name = "last-columns"
            def score(self, weight, statistic):
                return weight.new_ones(weight.shape).cumsum(1)

        @hookimpl
        def register_pruners(register):
            register(LastColumns)
    """


@hookspec
def register_calibrations(register: Callable[[type[Calibration]], None]) -> None:
    """Registers sources of calibration text. Users choose one by ``calibration=<name>``.

    :param register: Call this with each subclass of :class:`harness_ext.Calibration`.

    .. code-block:: python

        from harness_ext import Calibration, hookimpl

        class Alphabet(Calibration):
            name = "alphabet"
            def texts(self):
                while True:
                    yield "a b c d e f g h i j k l m n o p q r s t u v w x y z "

        @hookimpl
        def register_calibrations(register):
            register(Alphabet)
    """


@hookspec
def register_models(register: Callable[..., None]) -> None:
    """Registers short names for model folders. Users choose one by ``pretrained=<name>``.

    :param register: Call this with a name and the folder that ``from_pretrained`` loads. The folder need not exist before that. A third
        argument is optional: the command that writes the folder. The error for a missing folder names this command.

    .. code-block:: python

        from pathlib import Path

        from harness_ext import hookimpl

        @hookimpl
        def register_models(register):
            register("our-1b", Path("/models/our-1b"))
    """


@hookspec
def register_tasks(register: Callable[[Path], None]) -> None:
    """Registers folders with task YAMLs of lm-eval. The hook is not called if lm-eval runs without its default tasks.

    :param register: Call this with each folder. The folder is searched like lm-eval's ``--include_path``, which takes precedence.

    .. code-block:: python

        from pathlib import Path

        from harness_ext import hookimpl

        @hookimpl
        def register_tasks(register):
            register(Path(__file__).parent)  # the folder with the YAML files
    """


@hookspec
def register_allocations(register: Callable[[type[Allocation]], None]) -> None:
    """Registers allocations, which choose the sparsity of each linear layer. Users choose one by ``allocation=<name>``.

    :param register: Call this with each subclass of :class:`harness_ext.Allocation`.

    .. code-block:: python

        from harness_ext import Allocation, hookimpl

        class Same(Allocation):
            name = "same"
            def spread(self, sparsity, layers, measured):
                return {layer.name: sparsity for layer in layers}

        @hookimpl
        def register_allocations(register):
            register(Same)
    """
