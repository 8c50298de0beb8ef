"""Runs the trials of a sweep on a Ray cluster. Workers return results, and the driver writes the records.

A trial is a task of Ray: if its node is lost, Ray runs it again on another node. A worker process keeps its model and tasks for its next
trial. Every node needs this package in the same versions, and models and files under the same paths.
"""

from __future__ import annotations

import re
import socket
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from harness_ext.errors import BadOptionError, HarnessExtError, one_line, shortened, with_type
from harness_ext.extras import require_extra
from harness_ext.plugins import Plugins
from harness_ext.sweep.dense import DenseModel
from harness_ext.sweep.display import Display
from harness_ext.sweep.evaluation import run_trial
from harness_ext.sweep.fields import Sweep
from harness_ext.sweep.grid import trial_from
from harness_ext.sweep.identity import model_identity, settings
from harness_ext.sweep.items import Catalogue, Items
from harness_ext.sweep.prepared import Job
from harness_ext.sweep.run import Engine, Outcome
from harness_ext.sweep.text import identity, text_of

_last: dict[str, tuple[DenseModel, Items, str]] = {}  # what this worker process loaded for its last trial
RETRIES = 5  # of a trial whose node or process is lost
LOCAL = ("device", "threads", "machine")  # settings in which the driver and the workers may differ


class TrialError(HarnessExtError):
    """An error in a worker."""


def on_ray(address: str | None, cpus: float, gpus: float) -> Engine:
    """An engine for :func:`harness_ext.sweep.run.run`.

    Args:
        address: as for ``ray.init``. None takes the address of the environment, or starts a cluster on this machine alone.
        cpus, gpus: CPUs and GPUs per trial.

    Raises:
        BadOptionError: there is no cluster at the address.
        MissingExtraError: Ray is not installed.
    """
    require_extra("ray", "--engine ray")
    import ray

    if not ray.is_initialized():
        _look(address)
        try:
            ray.init(address=address, log_to_driver=False)
        except Exception as error:  # of many kinds, some of them not Ray's own
            raise BadOptionError(f"--address {shortened(address)}: no cluster there: {one_line(error, whole=True)}") from error

    def engine(sweep: Sweep, jobs: Sequence[Job], _: dict[str, Items], display: Display) -> Iterator[Outcome]:
        # max_calls=0: a worker with a GPU would end after each trial otherwise, and load the model again for the next
        remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES, max_calls=0)(work)
        running = {remote.remote(sweep, dict(job.trial.arguments), job.settings): job for job in jobs}
        waiting = list(running)
        display.begin(f"{len(jobs)} trials on {sum(node['Alive'] for node in ray.nodes())} nodes")
        while waiting:
            ready, waiting = ray.wait(waiting, num_returns=1)
            job = running.pop(ready[0])
            try:
                results, samples, measured, error = ray.get(ready[0])
            except ray.exceptions.RayError as failure:  # lost more often than Ray tries again
                yield Outcome(job, error=TrialError(with_type(failure)))
                continue
            if error:
                yield Outcome(job, error=TrialError(error))
            else:
                yield Outcome(job, results, samples, measured | {"cost": job.cost})

    return engine


def work(sweep: Sweep, arguments: Mapping[str, Any], expected: Mapping[str, Any]) -> tuple[Any, Any, dict[str, Any], str]:
    """Runs a trial in a worker. Returns results, samples and measurements, and the text of an error or an empty text."""
    try:
        if expected["threads"]:
            torch.set_num_threads(expected["threads"])  # Ray sets them to the CPUs of a trial; they decide the last bits of a score
        trial = trial_from(arguments, Plugins())
        dense, items, model = _prepared(sweep, trial.pretrained)
        here = settings(sweep, trial, model, items.digests, identity(sweep, items.text) if items.text else None)
        if different := sorted(name for name in expected if name not in LOCAL and here[name] != expected[name]):
            name = different[0]
            return None, None, {}, f"this node would run another trial: its {name} is {here[name]}, not {expected[name]}"
        try:
            return *run_trial(sweep, trial, dense, items), ""
        except Exception:
            dense.after_failure()
            raise
    except Exception as error:  # an error may be of a class that the driver cannot load
        return None, None, {}, f"{with_type(error)} ({_where(error)})"


def _prepared(sweep: Sweep, pretrained: str) -> tuple[DenseModel, Items, str]:
    """What this process loaded for its last trial, or loads now. A model is freed before another one is loaded."""
    name = f"{pretrained} {sweep}"
    if name not in _last:
        _last.clear()
        items = Items(Catalogue(sweep.tasks, sweep.metadata, sweep.include_path, sweep.of_model()), pretrained, sweep, text_of(sweep))
        _last[name] = DenseModel(sweep, pretrained), items, model_identity(Plugins(), pretrained, sweep.revision)
    return _last[name]


def _look(address: str | None) -> None:
    """Checks that something listens at ``host:port``: Ray itself would try for minutes."""
    host_and_port = re.fullmatch(r"(?:ray://)?([^:/]+):(\d+)", address or "")
    if host_and_port:
        try:
            socket.create_connection((host_and_port[1], int(host_and_port[2])), timeout=10).close()
        except OSError as error:
            raise BadOptionError(f"--address {shortened(address)}: no cluster there: {error.strerror or error}") from error


def _where(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{last.filename}:{last.lineno}"
