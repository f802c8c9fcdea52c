"""``Content`` of the embedded cluster, through its nodes' control API."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from brokers.adapters.base import QueueKey
from brokers.adapters.content import Chunk, Content, Definitions, Imported, Opened, Runs

READ_BYTES: Final = 4 << 20
WRITE_BYTES: Final = 24 << 20
"""Bytes in one line to a node; more come in several."""
RUNS_A_READ: Final = 4_096
ROWS_A_CALL: Final = 500
TIMEOUT: Final = 60.0
"""Seconds for what a node has to commit or collect."""
READ_TIMEOUT: Final = 10.0
"""Seconds after which another replica is read; less than a worker's lease."""

Call = Callable[..., Any]


class EmbeddedContent(Content):
    """``call(method, params, timeout, node)`` asks a node, or any."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def definitions(self) -> tuple[str, Definitions]:
        found = self._call("definitions", {}, timeout=TIMEOUT)
        return found["cluster"], found["definitions"]

    def import_definitions(self, definitions: Definitions) -> Imported:
        made: dict[str, int] = {}
        kept: dict[str, int] = {}
        conflicts: list[str] = []
        for section, rows in definitions.items():
            for first in range(0, len(rows), ROWS_A_CALL):
                part = {section: rows[first : first + ROWS_A_CALL]}
                found = self._call("import_definitions", {"definitions": part}, timeout=TIMEOUT)
                made[section] = made.get(section, 0) + found["made"][section]
                kept[section] = kept.get(section, 0) + found["kept"][section]
                conflicts += found["conflicts"]
        return Imported(made, kept, conflicts)

    def open(self, node: str, queues: Sequence[QueueKey]) -> list[Opened]:
        found = self._call("backup_open", {"queues": list(queues)}, timeout=READ_TIMEOUT, node=node)
        return [
            Opened(q["group"], list(zip(q["runs"][0::2], q["runs"][1::2], strict=True)), q["next"])
            for q in found["queues"]
        ]

    def ends(self, node: str, queues: Sequence[QueueKey]) -> dict[QueueKey, tuple[int, int]]:
        found = self._call("backup_end", {"queues": list(queues)}, node=node)
        return {key: (q["group"], q["end"]) for key, q in zip(queues, found["queues"], strict=True)}

    def hold(self, node: str, positions: Mapping[QueueKey, int]) -> None:
        keys = list(positions)
        params = {"queues": keys, "positions": [positions[key] for key in keys]}
        self._call("backup_hold", params, node=node)

    def read(self, node: str, queue: QueueKey, group: int, runs: Runs, skip: int) -> Chunk:
        asked = runs[:RUNS_A_READ]
        params = {
            "vhost": queue[0],
            "name": queue[1],
            "group": group,
            "runs": [position for run in asked for position in run],
            "skip": skip,
            "max_bytes": READ_BYTES,
        }
        found = self._call("backup_read", params, timeout=READ_TIMEOUT, node=node)
        done = found["done"] and len(asked) == len(runs)
        return Chunk(base64.b64decode(found["data"]), done, found["at"], found["skip"], found["gone"])

    def write(self, queue: QueueKey, data: bytes, mark: str | None) -> tuple[int, int]:
        params: dict[str, Any] = {"vhost": queue[0], "name": queue[1], "mark": mark}
        node = None
        if len(data) > WRITE_BYTES:
            node = self._call("ping", {})["node"]
            params["upload"] = secrets.token_hex(8)
            for first in range(0, len(data) - WRITE_BYTES, WRITE_BYTES):
                piece = base64.b64encode(data[first : first + WRITE_BYTES]).decode("ascii")
                self._call(
                    "backup_write", {**params, "data": piece, "more": True}, timeout=TIMEOUT, node=node
                )
            data = data[first + WRITE_BYTES :]
        params["data"] = base64.b64encode(data).decode("ascii")
        found = self._call("backup_write", params, timeout=TIMEOUT, node=node)
        return found["written"], found["refused"]
