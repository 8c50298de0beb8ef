"""The folder of a sweep while the sweep runs."""

from __future__ import annotations

import logging
import os
import re
import shutil
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import filelock

from harness_ext.atomic import write_file, writing
from harness_ext.errors import BadOptionError, shortened
from harness_ext.sweep.records import KEY, TRIALS, move_aside, scan
from harness_ext.sweep.table import table
from harness_ext.sweep.trial import FAILED, write, write_failure

if TYPE_CHECKING:
    from harness_ext.sweep.evaluation import Results, Samples
    from harness_ext.sweep.fields import Sweep
    from harness_ext.sweep.grid import TrialSpec

TABLE = "results.csv"
UNFINISHED = re.compile(rf"\.({re.escape(TABLE)}|{KEY.pattern}(\.json)?)\.[0-9a-f]{{8}}\.part(\.lock)?")
log = logging.getLogger(__name__)


class Folder:
    """The folder of a sweep, locked, with its records.

    Raises:
        BadOptionError: not a folder, no permission to write there, or another sweep runs in it.
        WriteError: the file system refuses.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        if os.path.exists(out) and not os.path.isdir(out):
            raise BadOptionError(f"--out {shortened(out)}: a file of that name exists: want the path of a folder")
        with writing(out):
            (out / TRIALS).mkdir(parents=True, exist_ok=True)
        if not os.access(out / TRIALS, os.W_OK | os.X_OK):
            raise BadOptionError(f"--out {shortened(out)}: no permission to write in it")
        self._lock = filelock.FileLock(out / "lock", timeout=0)
        with writing(out):
            try:
                self._lock.acquire()
            except filelock.Timeout as error:
                raise BadOptionError(f"--out {shortened(out)}: another sweep is at work in this folder") from error
        self._tidy()
        records, corrupt = scan(out)
        self.records = {record.key: record for record in records}
        for folder, reason in corrupt.items():
            log.warning("%s is corrupt (%s): moved to %s; the trial runs again", folder, reason, move_aside(folder).name)

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._lock.release()

    def keep(
        self, sweep: Sweep, trial: TrialSpec, settings: Mapping[str, Any], results: Results, samples: Samples, measured: Mapping[str, Any]
    ) -> None:
        """Writes the record of a trial and the tables.

        Raises:
            WriteError: the disk is full, or the file system refuses.
        """
        record = write(self.out, sweep, trial, settings, results, samples, measured)
        self.records[record.key] = record
        with writing(self.out):
            (self.out / FAILED / f"{record.key}.json").unlink(missing_ok=True)
        self.write_tables()

    def fail(self, trial_key: str, trial: TrialSpec, settings: Mapping[str, Any], error: BaseException) -> None:
        """Writes down that a trial failed.

        Raises:
            WriteError: the disk is full, or the file system refuses.
        """
        write_failure(self.out, trial_key, trial, settings, error, "".join(traceback.format_exception(error)))

    def write_tables(self) -> None:
        """Writes the tables again if the records have changed.

        Raises:
            WriteError: the disk is full, or the file system refuses.
        """
        content = table(self.records.values())
        path = self.out / TABLE
        if not path.is_file() or path.read_bytes() != content.encode():
            write_file(path, content)

    def _tidy(self) -> None:
        """Deletes the unfinished files of sweeps that were killed. The lock tells that no other sweep is running."""
        for folder in (self.out, self.out / TRIALS, self.out / FAILED):
            for part in [path for path in folder.glob(".*") if UNFINISHED.fullmatch(path.name)]:
                with writing(part):
                    shutil.rmtree(part) if part.is_dir() else part.unlink()
