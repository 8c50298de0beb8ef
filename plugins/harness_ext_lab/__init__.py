"""The embedded model ``lab`` and the tasks that come with the package."""

from collections.abc import Callable
from pathlib import Path

from harness_ext import hookimpl


@hookimpl
def register_models(register: Callable[[str, Path], None]) -> None:
    register("lab", Path(__file__).parent / "lab")


@hookimpl
def register_tasks(register: Callable[[Path], None]) -> None:
    import harness_ext

    package = Path(harness_ext.__file__).parent
    # In a wheel the task folder is in the package, in a source checkout beside it.
    inside = package / "task_configs"
    register(inside if inside.is_dir() else package.parent / "task_configs")
