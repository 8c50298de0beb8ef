"""``harness-ext prune``: from a checkpoint to a pruned one, or to its masks."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from harness_ext.atomic import check_out, whole_folder, writing
from harness_ext.engine.plan import ARGUMENTS, Plan, take_plan
from harness_ext.engine.run import apply
from harness_ext.errors import BadOptionError, UnsupportedModelError, did_you_mean, one_line, shortened, shown
from harness_ext.host.arguments import DTYPES, check_device
from harness_ext.host.model_folder import model_folder
from harness_ext.host.preflight import check_config, check_plan, check_tokenizer, without_weights
from harness_ext.method.calibration import Calibration
from harness_ext.method.pruner import ModelPruner, StructuredPruner
from harness_ext.plugins import Plugins
from harness_ext.weights import gguf
from harness_ext.weights.export import describe, save
from harness_ext.weights.loading import load
from harness_ext.weights.masks import save_masks
from harness_ext.weights.remote_code import copy_code
from harness_ext.weights.shards import Shards

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

FILES = ("*.json", "model*.safetensors", "*.model", "*.txt", "*.jinja", "*.py")  # of a hub repository, where it is read file by file
CODE = ("*.json", "*.py")


@dataclass(frozen=True)
class PruneJob:
    """What to prune, and what to write where.

    Args:
        pretrained: the name of a registered model, a folder, or a name on the hub.
        out: the folder to write.
        arguments: of the plan, by name: ``pruner``, ``sparsity`` and so on, and dotted options such as ``pruner.block_size``.
        dtype: ``auto``, which is that of the checkpoint, or another to load it in, compute in, and save.
        device: such as ``cuda``; by default that, where there is one.
        masks_only: write masks, one bit a weight, instead of weights.
        stream: read and write one decoder block at a time, for a model that is larger than memory.
        force: replace ``out`` if it was written here.
        gguf_file: the file in the folder that holds the weights, which are unpacked.
    """

    pretrained: str
    out: Path
    arguments: Mapping[str, Any]
    dtype: str = "auto"
    device: str | None = None
    masks_only: bool = False
    stream: bool = False
    force: bool = False
    revision: str | None = None
    trust_remote_code: bool = False
    gguf_file: str | None = None

    @property
    def called(self) -> str:
        """The model as the user wrote it."""
        return f"--pretrained {shortened(self.pretrained)}"


def run(job: PruneJob) -> dict[str, Any]:
    """Does the job, and returns the pruning record, which is also written.

    Raises:
        HarnessExtError: whatever is wrong; with the options, before any weight is loaded.
    """
    plugins = Plugins()
    arguments = dict(job.arguments)
    plan = take_plan(plugins, arguments)
    if arguments:
        name = min(arguments)
        raise BadOptionError(f"no argument {shown(name)}.{did_you_mean(name, ARGUMENTS)}")
    _check(job, plan)
    check_out(job.out, job.force)
    folder = model_folder(plugins, job.pretrained, job.gguf_file)
    weights = gguf.origin(gguf.find(folder, job.gguf_file, job.revision)) if job.gguf_file else {}
    with _quiet():
        config = _config(job, folder)
        if plan.sparsity.ratio > 0:
            check_config(config, job.called)
            check_plan(plan, without_weights(config, job.called, trust_remote_code=job.trust_remote_code))
        tokenizer = _tokenizer(job, folder)
        check_tokenizer(plan, tokenizer, folder)
        source = _described(job) | weights
        return _stream(job, plan, folder, tokenizer, source) if job.stream else _whole(job, plan, folder, tokenizer, source)


def summary(record: Mapping[str, Any], out: Path) -> str:
    """One line on what was written."""
    return f"{out}: {record['plan']['pruner']}, sparsity {record['achieved_sparsity']:.4f} achieved, fingerprint {record['fingerprint']}"


def _check(job: PruneJob, plan: Plan) -> None:
    """Refuses options that do not go together.

    Raises:
        BadOptionError: the first of them.
    """
    if job.dtype not in DTYPES:
        raise BadOptionError(f"--dtype {shortened(job.dtype)}: want {', '.join(DTYPES)}.{did_you_mean(job.dtype, DTYPES)}")
    if job.device is not None:
        check_device(job.device, f"--device {shortened(job.device)}")
    name = plan.pruner.name
    if job.masks_only and job.stream:
        raise BadOptionError("--masks-only does not go with --stream: masks are taken of a model that is in memory")
    if job.masks_only and isinstance(plan.pruner, StructuredPruner):
        raise BadOptionError(
            f"--masks-only does not go with pruner {shown(name)}: it takes layers, heads or channels out and leaves no mask"
        )
    if job.stream and job.gguf_file:
        raise BadOptionError("--stream does not go with --gguf-file: a GGUF file is unpacked as a whole")
    if job.stream and isinstance(plan.pruner, ModelPruner):
        raise BadOptionError(f"--stream does not go with pruner {shown(name)}: it wants the whole model in memory")
    if job.stream and plan.needs_calibration and _source(plan) == "self":
        raise BadOptionError("--stream does not go with calibration=self, which wants the whole model: give --calibration FILE or hub")


def _whole(job: PruneJob, plan: Plan, folder: str, tokenizer: PreTrainedTokenizerBase | None, source: dict[str, Any]) -> dict[str, Any]:
    from transformers import AutoModelForCausalLM

    with _loading(job):
        unpacked = {"quantization_config": gguf.dequantised()} if job.gguf_file else {}
        model = load(AutoModelForCausalLM, folder, called=job.called, dtype=_dtype(job.dtype) or "auto", **_place(job), **unpacked)
    with _moving(job):
        model = model.to(_device(job)).eval()
    record = apply(plan, model, tokenizer) | {"source": source}
    if job.masks_only:
        save_masks(model, record, job.out, force=job.force)
    else:
        save(model, tokenizer, record, job.out, force=job.force, code=_code(job, folder, model.config))
    return record


def _stream(job: PruneJob, plan: Plan, folder: str, tokenizer: PreTrainedTokenizerBase | None, source: dict[str, Any]) -> dict[str, Any]:
    files = _local(job, folder, FILES)
    with whole_folder(job.out, force=job.force) as part:
        with _moving(job):
            shards = Shards.open(files, part, dtype=_dtype(job.dtype), device=_device(job), trust_remote_code=job.trust_remote_code)
        with shards:
            record = apply(plan, shards.model, tokenizer, placement=shards) | {"source": source}
            shards.finish()
        with writing(job.out):
            copy_code(files, part)
        describe(part, job.out, record, tokenizer, job.pretrained)
    return record


def _code(job: PruneJob, folder: str, config: PretrainedConfig) -> Path | None:
    """The folder with the code of a model; None where there is none."""
    return _local(job, folder, CODE) if getattr(config, "auto_map", None) else None


def _local(job: PruneJob, folder: str, patterns: tuple[str, ...]) -> Path:
    """The folder of the model; of one on the hub, the one that its files were downloaded to."""
    source = Path(folder)
    if source.is_dir():
        return source
    from huggingface_hub import snapshot_download

    with _loading(job):
        return Path(snapshot_download(folder, revision=job.revision, allow_patterns=list(patterns)))


def _described(job: PruneJob) -> dict[str, Any]:
    given = {"revision": job.revision, "trust_remote_code": job.trust_remote_code, "masks_only": job.masks_only, "stream": job.stream}
    return {"pretrained": job.pretrained, "dtype": job.dtype} | {name: value for name, value in given.items() if value}


def _config(job: PruneJob, folder: str) -> PretrainedConfig:
    from transformers import AutoConfig

    with _loading(job):
        return AutoConfig.from_pretrained(folder, **_place(job))


def _tokenizer(job: PruneJob, folder: str) -> PreTrainedTokenizerBase | None:
    """None where there is none; most methods can do without."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, **_place(job))
    except (OSError, ValueError, KeyError, TypeError):  # what AutoTokenizer raises depends on what is missing
        return None


def _place(job: PruneJob) -> dict[str, Any]:
    """Where transformers finds the parts of the model."""
    where = {"revision": job.revision, "trust_remote_code": job.trust_remote_code}
    return where | ({"gguf_file": job.gguf_file} if job.gguf_file else {})


def _source(plan: Plan) -> str:
    return plan.calibration.name if isinstance(plan.calibration, Calibration) else "input_ids"


def _dtype(name: str) -> torch.dtype | None:
    return None if name == "auto" else getattr(torch, name)


def _device(job: PruneJob) -> torch.device:
    return torch.device(job.device or ("cuda" if torch.cuda.is_available() else "cpu"))


@contextmanager
def _loading(job: PruneJob) -> Iterator[None]:
    """Makes one line of what transformers and the hub say when they cannot load a model."""
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise UnsupportedModelError(f"{job.called}: cannot be loaded: {one_line(error)}") from error


@contextmanager
def _moving(job: PruneJob) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise BadOptionError(f"--device {_device(job)}: the model cannot be put there: {str(error).splitlines()[0]}") from error


@contextmanager
def _quiet() -> Iterator[None]:
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
