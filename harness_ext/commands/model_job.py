"""The model of a command: how it is named, checked and loaded."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from harness_ext.engine.plan import ARGUMENTS, Plan, take_plan
from harness_ext.errors import BadOptionError, UnsupportedModelError, did_you_mean, one_line, shortened, shown
from harness_ext.host.arguments import DTYPES, check_device
from harness_ext.plugins import Plugins
from harness_ext.weights import gguf
from harness_ext.weights.loading import load

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class ModelJob:
    """A model, and how it is to be pruned.

    Args:
        pretrained: the name of a registered model, a folder, or a name on the hub.
        arguments: of the plan, by name: ``pruner``, ``sparsity`` and so on, and dotted options such as ``pruner.block_size``.
        dtype: ``auto``, which is that of the checkpoint, or another to load it in, compute in, and save.
        device: such as ``cuda``; by default that, where there is one.
        gguf_file: the file in the folder that holds the weights, which are unpacked.
    """

    pretrained: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "auto"
    device: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    gguf_file: str | None = None

    @property
    def called(self) -> str:
        """The model as the user wrote it."""
        return f"--pretrained {shortened(self.pretrained)}"

    @property
    def torch_dtype(self) -> torch.dtype | None:
        """None for that of the checkpoint."""
        return None if self.dtype == "auto" else getattr(torch, self.dtype)

    @property
    def torch_device(self) -> torch.device:
        return torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))

    def plan(self, plugins: Plugins) -> Plan:
        """The plan of the arguments.

        Raises:
            BadOptionError: an argument that does not exist, or a wrong value.
        """
        arguments = dict(self.arguments)
        plan = take_plan(plugins, arguments)
        if arguments:
            name = min(arguments)
            raise BadOptionError(f"no argument {shown(name)}.{did_you_mean(name, ARGUMENTS)}")
        return plan

    def check(self) -> None:
        """Checks the dtype and the device.

        Raises:
            BadOptionError: one of them does not exist.
        """
        if self.dtype not in DTYPES:
            raise BadOptionError(f"--dtype {shortened(self.dtype)}: want {', '.join(DTYPES)}.{did_you_mean(self.dtype, DTYPES)}")
        if self.device is not None:
            check_device(self.device, f"--device {shortened(self.device)}")

    def config(self, folder: str) -> PretrainedConfig:
        """The configuration of the model.

        Raises:
            UnsupportedModelError: it cannot be read.
        """
        from transformers import AutoConfig

        with self.loading():
            return AutoConfig.from_pretrained(folder, **self._place())

    def tokenizer(self, folder: str) -> PreTrainedTokenizerBase | None:
        """None where there is none; most methods can do without.

        Raises:
            UnsupportedModelError: there is one, and a library that it needs is not installed.
        """
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(folder, **self._place())
        except (OSError, ValueError, KeyError, TypeError):  # what AutoTokenizer raises depends on what is missing
            return None
        except ImportError as error:
            raise UnsupportedModelError(f"{self.called}: its tokenizer cannot be loaded: {one_line(error)}") from error

    def load(self, folder: str) -> PreTrainedModel:
        """The model with its weights, in evaluation mode, on its device.

        Raises:
            UnsupportedModelError: it cannot be loaded.
            BadOptionError: it cannot be put on the device.
        """
        from transformers import AutoModelForCausalLM

        with self.loading():
            unpacked = {"quantization_config": gguf.dequantised()} if self.gguf_file else {}
            model = load(AutoModelForCausalLM, folder, called=self.called, dtype=self.torch_dtype or "auto", **self._place(), **unpacked)
        with self.moving():
            return model.to(self.torch_device).eval()

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Makes one line of what transformers and the hub say when they cannot load a model."""
        try:
            yield
        except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
            raise UnsupportedModelError(f"{self.called}: cannot be loaded: {one_line(error)}") from error

    @contextmanager
    def moving(self) -> Iterator[None]:
        """Makes one line of what torch says when a model cannot be put on the device."""
        try:
            yield
        except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
            raise BadOptionError(f"--device {self.torch_device}: the model cannot be put there: {str(error).splitlines()[0]}") from error

    def _place(self) -> dict[str, Any]:
        """Where transformers finds the parts of the model."""
        where = {"revision": self.revision, "trust_remote_code": self.trust_remote_code}
        return where | ({"gguf_file": self.gguf_file} if self.gguf_file else {})


@contextmanager
def quiet() -> Iterator[None]:
    """Without the bars of transformers, where standard error is no terminal."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
