"""What decides the scores of a trial, and the key that names its record."""

from __future__ import annotations

import functools
import hashlib
import json
import platform
from collections.abc import Callable, Collection, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from harness_ext.engine import ranks
from harness_ext.engine.plan import Plan
from harness_ext.errors import UnsupportedModelError, one_line
from harness_ext.host.model_folder import model_folder
from harness_ext.method.calibration import Calibration
from harness_ext.method.options import Configurable
from harness_ext.method.source_code import code_of
from harness_ext.plugins import Origin, Plugins

if TYPE_CHECKING:
    from harness_ext.sweep.fields import Sweep
    from harness_ext.sweep.grid import TrialSpec

VERSIONS = ("torch", "transformers", "lm_eval", "numpy", "datasets", "lm-eval-pruned")


def identity_of(plugins: Plugins, pretrained: str, revision: str | None) -> Callable[[], str]:
    """Checks that there is such a model, and returns what gives its identity. The digest of a folder is made when it is first asked for.

    Raises:
        BadOptionError, UnsupportedModelError: as :func:`model_identity`.
    """
    identity = functools.cache(functools.partial(model_identity, plugins, pretrained, revision))
    if not Path(model_folder(plugins, pretrained)).is_dir():
        identity()
    return identity


def model_identity(plugins: Plugins, pretrained: str, revision: str | None) -> str:
    """Identifies a model: the digest of its folder without the model card, or its commit on the hub. No weight is loaded.

    Raises:
        BadOptionError: not a registered model, a folder or a name on the hub.
        UnsupportedModelError: the model is not on the hub, or the hub cannot be reached and the model is not in the local cache.
    """
    folder = model_folder(plugins, pretrained)
    if Path(folder).is_dir():
        return "sha256:" + _folder_digest(Path(folder), without=("README.md",))
    from huggingface_hub import HfApi, try_to_load_from_cache

    try:
        return f"hub:{folder}@{HfApi().model_info(folder, revision=revision).sha}"
    except Exception as error:  # the hub's client raises errors of several libraries
        cached = try_to_load_from_cache(folder, "config.json", revision=revision)
        if isinstance(cached, str):
            return f"hub:{folder}@{Path(cached).parent.name}"
        reason = one_line(error, whole=True)
        raise UnsupportedModelError(f"--pretrained {pretrained}: not on the hub, or it cannot be reached: {reason}") from error


def settings(
    sweep: Sweep, trial: TrialSpec, model: str, items: Mapping[str, str], perplexity: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Everything that decides the scores of a trial, as JSON values. The path of a model's folder is not part of it.

    Args:
        model: as :func:`model_identity` gives it.
        items: a digest of each task's items, in the order of the tasks.
        perplexity: what decides the perplexity of the trial, if it is measured.
    """
    plan = trial.plan.describe() if not trial.is_dense else {"sparsity": "0"}
    evaluation = sweep.evaluation()
    model_args = {name: value for name, value in sweep.model_args.items() if name != "calibration_cache"}  # which changes no score
    device = torch.device(sweep.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    processes = {"processes": ranks.count()} if ranks.count() > 1 else {}  # sums over shares of the text differ in the last bits
    return {
        "model": model,
        "dtype": sweep.dtype or "auto",
        "trust_remote_code": sweep.trust_remote_code,
        "plan": plan,
        "methods": {} if trial.is_dense else _methods(trial.plan),
        "tasks": [[name, digest] for name, digest in items.items()],
        "metadata": dict(sweep.metadata),
        "limit": sweep.limit,
        "batch_size": sweep.batch_size or "by the size of the model",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" and torch.cuda.is_available() else device.type,
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "machine": platform.machine(),
        "versions": dict(_versions()),
        **processes,
        **({"evaluation": evaluation} if evaluation else {}),
        **({"model_args": model_args} if model_args else {}),
        **({"perplexity": dict(perplexity)} if perplexity else {}),
    }


def key(settings: Mapping[str, Any]) -> str:
    """The name of a trial's record: a digest of its settings."""
    return hashlib.sha256(canonical(settings)).hexdigest()[:16]


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and without spaces, for digests."""
    return json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"), default=str).encode()


@functools.cache
def _versions() -> Mapping[str, str]:
    """The versions of what this process has imported."""
    return {name: metadata.version(name) for name in VERSIONS}


def _methods(plan: Plan) -> dict[str, Any]:
    """Version and code of each method, and the content of the files that its options name."""
    methods = {"pruner": _method(plan.pruner, plan.pruner_origin), "allocation": _method(plan.allocation, plan.allocation_origin)}
    if plan.needs_calibration and isinstance(plan.calibration, Calibration):
        methods["calibration"] = _method(plan.calibration, plan.calibration_origin)
    return methods


def _method(method: Configurable, origin: Origin | None) -> dict[str, Any]:
    identity: dict[str, Any] = {"version": str(origin) if origin else None, "code": code_of(type(method))}
    paths = {name: Path(str(value)).expanduser() for name, value in method.options().items() if isinstance(value, str | Path) and value}
    files = {name: _file_digest(path) for name, path in paths.items() if path.is_file()}
    folders = {name: _folder_digest(path) for name, path in paths.items() if "/" in str(path) and path.is_dir()}
    return identity | ({"files": files | folders} if files or folders else {})


def _folder_digest(folder: Path, without: Collection[str] = ()) -> str:
    sha = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_file() and relative.as_posix() not in without and not any(part.startswith(".") for part in relative.parts):
            sha.update(f"{relative.as_posix()} {_file_digest(path)}\n".encode())
    return sha.hexdigest()[:16]


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        sha = hashlib.sha256()
        while block := file.read(1 << 20):
            sha.update(block)
        return sha.hexdigest()[:16]
