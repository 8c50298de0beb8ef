"""The embedded models, a family that shrinks in width and depth, and the tasks that come with the package."""

from collections.abc import Callable
from pathlib import Path

from harness_ext import hookimpl

MODELS = ("lab-xs", "lab-s", "lab-s4", "lab-m")


@hookimpl
def register_models(register: Callable[[str, Path], None]) -> None:
    for name in MODELS:
        register(name, Path(__file__).parent / name)


@hookimpl
def register_tasks(register: Callable[[Path], None]) -> None:
    import harness_ext

    package = Path(harness_ext.__file__).parent
    # In a wheel the task folder is in the package, in a source checkout beside it.
    inside = package / "task_configs"
    register(inside if inside.is_dir() else package.parent / "task_configs")
