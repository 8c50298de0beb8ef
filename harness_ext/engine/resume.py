"""Checkpoints of a pruning run, one for each decoder block, from which a run that was killed goes on."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import filelock
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from harness_ext.atomic import whole_file
from harness_ext.errors import BadOptionError, shown

log = logging.getLogger(__name__)


class BlockCheckpoints:
    """The pruned blocks of one run, in a folder of its own below ``folder``: runs that would differ in a bit never share one.

    Args:
        folder: may hold the checkpoints of any number of runs.
        fingerprint: of the run, see :func:`harness_ext.engine.record.fingerprint`.

    Raises:
        BadOptionError: the folder cannot be written, or another process is at the same run.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder = folder / fingerprint
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = filelock.FileLock(self.folder / "lock")
            self._lock.acquire(timeout=0)
            for part in self.folder.glob(".*.part"):  # of a run that was killed: the lock says that none is alive
                part.unlink()
        except filelock.Timeout as error:
            raise BadOptionError(f"resume={shown(str(folder))}: another process is at this run ({fingerprint})") from error
        except OSError as error:
            raise BadOptionError(f"resume={shown(str(folder))}: {error.strerror or error}") from error

    def close(self) -> None:
        """Lets another process have the run."""
        self._lock.release()

    def load(self, index: int) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """The new weights of a block by layer name, and their entries in the record; None if the block has not been pruned yet.

        A file that cannot be read is moved aside and the block pruned again.
        """
        path = self._path(index)
        if not path.exists():
            return None
        try:
            with safe_open(path, "pt") as file:
                entries: dict[str, Any] = json.loads(file.metadata()["entries"])
                return {name: file.get_tensor(name) for name in entries}, entries
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            aside = path.with_suffix(".unreadable")
            path.replace(aside)
            log.warning("%s cannot be read (%s): moved to %s, the block is pruned again", path, error, aside.name)
            return None

    def save(self, index: int, weights: Mapping[str, torch.Tensor], entries: Mapping[str, Any]) -> None:
        """Keeps a pruned block: a kill leaves the whole file or none."""
        path = self._path(index)
        with whole_file(path) as part:
            save_file({name: weight.contiguous() for name, weight in weights.items()}, part, {"entries": json.dumps(dict(entries))})

    def _path(self, index: int) -> Path:
        return self.folder / f"block-{index:04d}.safetensors"
