"""The hooks of this package. A plugin is a module, named by an entry point of the group ``harness_ext``, with any of them:

.. code-block:: toml

    [project.entry-points.harness_ext]
    my-plugin = "my_package.my_module"

Hooks are called once per run, when names are first looked up. ``register`` may be called any number of times; a name that is already
taken is an error that says whose it is.
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


@hookspec
def register_pruners(register: Callable[[type[PruningMethod]], None]) -> None:
    """Registers pruning methods, to be chosen by ``pruner=<name>``.

    :param register: call it with each subclass of :class:`harness_ext.Pruner`,
        :class:`harness_ext.ModelPruner` or :class:`harness_ext.StructuredPruner`; its ``name`` is what users type.

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
    """Registers sources of calibration text, to be chosen by ``calibration=<name>``.

    :param register: call it with each subclass of :class:`harness_ext.Calibration`.

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
    """Registers short names for model folders, to be used as ``pretrained=<name>``.

    :param register: call it with a name and the folder that ``from_pretrained`` is to load. The folder need not exist until then; a third
        argument is the command that brings it, which the error names where the folder is missing.

    .. code-block:: python

        from pathlib import Path

        from harness_ext import hookimpl

        @hookimpl
        def register_models(register):
            register("our-1b", Path("/models/our-1b"))
    """


@hookspec
def register_tasks(register: Callable[[Path], None]) -> None:
    """Registers folders of lm-eval task YAMLs. Not called where lm-eval was asked to leave its default tasks out.

    :param register: call it with each folder; it is searched as lm-eval's own ``--include_path`` is, and that wins over it.

    .. code-block:: python

        from pathlib import Path

        from harness_ext import hookimpl

        @hookimpl
        def register_tasks(register):
            register(Path(__file__).parent)  # the folder with the YAML files
    """


@hookspec
def register_allocations(register: Callable[[type[Allocation]], None]) -> None:
    """Registers ways to spread the sparsity over the layers, to be chosen by ``allocation=<name>``.

    :param register: call it with each subclass of :class:`harness_ext.Allocation`.

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
