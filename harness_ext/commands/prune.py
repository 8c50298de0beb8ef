"""``harness-ext prune``: from a checkpoint to a pruned or quantised one, or to its masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness_ext.atomic import writing
from harness_ext.commands.model_job import ModelJob, quiet
from harness_ext.engine.plan import Plan
from harness_ext.engine.run import apply
from harness_ext.errors import BadOptionError, shown
from harness_ext.host.model_folder import model_folder
from harness_ext.host.preflight import check_config, check_plan, check_tokenizer, without_weights
from harness_ext.method.calibration import Calibration
from harness_ext.method.pruner import ModelPruner, StructuredPruner
from harness_ext.plugins import Plugins
from harness_ext.weights import gguf
from harness_ext.weights.checkpoint_record import of_checkpoint
from harness_ext.weights.export import describe, save
from harness_ext.weights.folder import check_out, out_folder
from harness_ext.weights.masks import save_masks
from harness_ext.weights.remote_code import copy_code
from harness_ext.weights.shards import Shards

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

FILES = ("*.json", "model*.safetensors", "*.model", "*.txt", "*.jinja", "*.py")  # of a hub repository, where it is read file by file
CODE = ("*.json", "*.py")


@dataclass(frozen=True, kw_only=True)
class PruneJob(ModelJob):
    """What to prune, and what to write where.

    Args:
        out: the folder to write.
        masks_only: write masks, one bit a weight, instead of weights.
        stream: read and write one decoder block at a time, for a model that is larger than memory.
        force: replace ``out`` if it was written here.
    """

    out: Path
    masks_only: bool = False
    stream: bool = False
    force: bool = False


def run(job: PruneJob) -> dict[str, Any]:
    """Does the job, and returns the pruning record, which is also written.

    Raises:
        HarnessExtError: whatever is wrong; with the options, before any weight is loaded.
    """
    plugins = Plugins()
    plan = job.plan(plugins)
    job.check()
    _check(job, plan)
    check_out(job.out, job.force)
    folder = model_folder(plugins, job.pretrained, job.gguf_file)
    weights = gguf.origin(gguf.find(folder, job.gguf_file, job.revision)) if job.gguf_file else {}
    with quiet():
        config = job.config(folder)
        if plan.changes:
            check_config(config, job.called)
            check_plan(plan, without_weights(config, job.called, trust_remote_code=job.trust_remote_code))
        tokenizer = job.tokenizer(folder)
        check_tokenizer(plan, tokenizer, folder)
        beside = {"source": _described(job) | weights, **of_checkpoint(folder, revision=job.revision)}
        return _stream(job, plan, folder, tokenizer, beside) if job.stream else _whole(job, plan, folder, tokenizer, beside)


def summary(record: Mapping[str, Any], out: Path) -> str:
    """One line on what was written."""
    plan, achieved = record["plan"], record["achieved_sparsity"]
    parts = [plan["pruner"]]
    if quantisation := record.get("quantisation"):
        parts.append(f"{plan['bits']} bits, {quantisation['bits_a_weight']:.2f} a weight with its grid (simulated)")
    if achieved or not quantisation:
        parts.append(f"sparsity {achieved:.4f} achieved")
    return f"{out}: {', '.join(parts)}, fingerprint {record['fingerprint']}"


def _check(job: PruneJob, plan: Plan) -> None:
    """Refuses options that do not go together.

    Raises:
        BadOptionError: the first of them.
    """
    name = plan.pruner.name
    if job.masks_only and job.stream:
        raise BadOptionError("--masks-only does not go with --stream: masks are taken of a model that is in memory")
    if job.masks_only and isinstance(plan.pruner, StructuredPruner):
        raise BadOptionError(
            f"--masks-only does not go with pruner {shown(name)}: it takes layers, heads or channels out and leaves no mask"
        )
    if job.masks_only and plan.bits is not None:
        raise BadOptionError(f"--masks-only does not go with --bits {plan.bits}: quantised weights are written as weights")
    if job.stream and job.gguf_file:
        raise BadOptionError("--stream does not go with --gguf-file: a GGUF file is unpacked as a whole")
    if job.stream and isinstance(plan.pruner, ModelPruner):
        raise BadOptionError(f"--stream does not go with pruner {shown(name)}: it wants the whole model in memory")
    if job.stream and plan.needs_calibration and _source(plan) == "self":
        raise BadOptionError("--stream does not go with calibration=self, which wants the whole model: give --calibration FILE or hub")


def _whole(job: PruneJob, plan: Plan, folder: str, tokenizer: PreTrainedTokenizerBase | None, beside: dict[str, Any]) -> dict[str, Any]:
    model = job.load(folder)
    record = apply(plan, model, tokenizer) | beside
    if job.masks_only:
        save_masks(model, record, job.out, force=job.force)
    else:
        save(model, tokenizer, record, job.out, force=job.force, code=_code(job, folder, model.config))
    return record


def _stream(job: PruneJob, plan: Plan, folder: str, tokenizer: PreTrainedTokenizerBase | None, beside: dict[str, Any]) -> dict[str, Any]:
    files = _local(job, folder, FILES)
    with out_folder(job.out, force=job.force) as part:
        with job.moving():
            shards = Shards.open(files, part, dtype=job.torch_dtype, device=job.torch_device, trust_remote_code=job.trust_remote_code)
        with shards:
            record = apply(plan, shards.model, tokenizer, placement=shards) | beside
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

    with job.loading():
        return Path(snapshot_download(folder, revision=job.revision, allow_patterns=list(patterns)))


def _described(job: PruneJob) -> dict[str, Any]:
    given = {"revision": job.revision, "trust_remote_code": job.trust_remote_code, "masks_only": job.masks_only, "stream": job.stream}
    return {"pretrained": job.pretrained, "dtype": job.dtype} | {name: value for name, value in given.items() if value}


def _source(plan: Plan) -> str:
    return plan.calibration.name if isinstance(plan.calibration, Calibration) else "input_ids"
