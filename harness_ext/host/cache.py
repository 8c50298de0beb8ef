"""Separates the answers of differently pruned models in one file of ``lm_eval --use_cache``.

lm-eval finds a cached answer by the request only (lm-evaluation-harness#4063). Its database is an ``SqliteDict``, which is one table of a
file. Here each model gets its own table.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

PLACES = ("batch_size", "max_batch_size", "device", "pretrained", "parallelize", "device_map_option", "gpus")
"""Arguments that do not change the answers of a model, only where or how fast it computes them."""


def table_name(fingerprint: str, arguments: Mapping[str, Any]) -> str:
    """Name of the table of a model. It has the fingerprint, and a digest of the other arguments, such as ``add_bos_token``."""
    decisive = {name: repr(value) for name, value in arguments.items() if name not in PLACES}
    return f"pruned-hf-{fingerprint}-{hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:8]}"


def separate(database: Any, table: str) -> None:
    """Makes an ``SqliteDict`` read and write the table ``table``, and creates the table if necessary."""
    database.tablename = table
    database.conn.execute(f'CREATE TABLE IF NOT EXISTS "{table}" (key TEXT PRIMARY KEY, value BLOB)')
    database.conn.commit()
