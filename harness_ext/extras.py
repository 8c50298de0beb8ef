"""The extras of the distribution: libraries that some commands need and the others do not."""

from __future__ import annotations

from harness_ext.errors import MissingExtraError, one_line

MODULES = {
    "gguf": ("gguf",),
    "peft": ("peft",),
    "ray": ("pydantic", "ray", "ruamel.yaml"),
    "report": ("matplotlib", "pyarrow", "scipy"),
    "sweep": ("pydantic", "ruamel.yaml"),
    "testing": ("pytest", "scipy", "tokenizers"),
}
"""The modules that each extra brings."""


def require_extra(extra: str, what: str) -> None:
    """Imports the modules of an extra, so that a missing module is an error before any work is done.

    Args:
        extra: a key of ``MODULES``.
        what: what needs them, as the user wrote it, such as ``harness-ext report``.

    Raises:
        MissingExtraError: a module is not installed, or cannot be imported.
    """
    for module in MODULES[extra]:
        try:
            __import__(module)
        except ImportError as error:
            absent = isinstance(error, ModuleNotFoundError) and error.name in (module, module.partition(".")[0])
            state = "is not installed" if absent else f"cannot be imported ({one_line(error)})"
            raise MissingExtraError(f"{what} needs {module}, which {state}: pip install 'lm-eval-pruned[{extra}]'") from error
