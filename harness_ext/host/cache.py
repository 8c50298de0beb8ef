"""Keeps the answers of differently pruned models apart in one file of ``lm_eval --use_cache``.

lm-eval keys an answer by the request alone (lm-evaluation-harness#4063). Its database is an ``SqliteDict``, that is, one table of a file
which may hold many: here each model gets its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

PLACES = ("batch_size", "max_batch_size", "device", "pretrained", "parallelize", "device_map_option", "gpus")
"""Arguments that say where or how fast, and not what, a model answers."""


def table_name(fingerprint: str, arguments: Mapping[str, Any]) -> str:
    """The table of a model: its fingerprint, and a digest of the other arguments, such as ``add_bos_token``."""
    decisive = {name: repr(value) for name, value in arguments.items() if name not in PLACES}
    return f"pruned-hf-{fingerprint}-{hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:8]}"


def separate(database: Any, table: str) -> None:
    """Makes an ``SqliteDict`` read and write the table of that name, which is created if it is not there."""
    database.tablename = table
    database.conn.execute(f'CREATE TABLE IF NOT EXISTS "{table}" (key TEXT PRIMARY KEY, value BLOB)')
    database.conn.commit()
