"""Who belongs to a cluster and where it listens: ``MQ_HOME/cluster/cluster.json`` and the cluster's secret.

The file is written by whoever starts the cluster (``manage.py run``, ``manage.py cluster start``) and only
read by the nodes. A running cluster's membership is replicated state; this is where its members find each
other when they start.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

DEFAULT_NODES = 3
DEFAULT_AMQP_PORT = 5672
LOOPBACK = "127.0.0.1"
MAX_NODES = 9
"""More members make every commit slower and survive nothing more that happens to one machine."""
SECRET_BYTES = 32

_CONTROL_OFFSET = 10_000
_PEER_OFFSET = 20_000
_MAX_PORT = 65_535


class ConfigError(Exception):
    """The cluster's configuration cannot be used as it stands; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """One node: its number (1..65535, never reused), its name, and the three ports it listens on."""

    id: int
    name: str
    host: str
    amqp: int
    peer: int
    control: int


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """The members of one cluster, as they lie under ``home`` (``MQ_HOME``)."""

    home: Path
    cluster_id: str
    name: str
    nodes: tuple[NodeConfig, ...]
    founders: tuple[int, ...]
    """Ids of the nodes that the cluster began with; the others joined later."""

    @classmethod
    def ensure(cls, home: Path, nodes: int | None = None, amqp_port: int | None = None) -> ClusterConfig:
        """The configuration under ``home``, made on the first call and adapted on later ones.

        ``nodes`` and ``amqp_port`` (node i of N listens on ``amqp_port + i``) default to what is there
        already, then to 3 and 5672. Another port moves every node; more nodes are added at the end. Fewer
        nodes are refused: a replica is taken away by an operation, not by a setting.

        Raises ConfigError for a count or port out of range, a count below the present one, or a damaged file.
        The caller holds the lock of ``home``; two that run this at once could make two clusters.
        """
        home = home.absolute()
        if not cls.path(home).exists():
            count = DEFAULT_NODES if nodes is None else nodes
            base = DEFAULT_AMQP_PORT if amqp_port is None else amqp_port
            if (home / "cluster" / "node1").exists():
                raise ConfigError(
                    f"{home / 'cluster'} holds a node's data but no cluster.json; restore that file (a new "
                    f"one would be of a new cluster, which cannot read the data) or choose another MQ_HOME"
                )
            nodes_at_first = _lay_out(range(1, count + 1), base)
            config = cls(
                home, uuid.uuid4().hex, "mqconsole", nodes_at_first, tuple(node.id for node in nodes_at_first)
            )
            _write_secret(config.secret_path)
            config.save()
            return config
        config = cls.load(home)
        config.secret()
        count = len(config.nodes) if nodes is None else nodes
        if count < len(config.nodes):
            raise ConfigError(
                f"the cluster in {home} has {len(config.nodes)} nodes, {count} were asked for: no setting "
                f"shrinks a cluster; set MQ_NODES (--nodes) to {len(config.nodes)} or leave it out"
            )
        base = config.nodes[0].amqp if amqp_port is None else amqp_port
        ids = [node.id for node in config.nodes]
        ids += range(max(ids) + 1, max(ids) + 1 + count - len(ids))
        adapted = replace(config, nodes=_lay_out(ids, base, {node.id: node for node in config.nodes}))
        if adapted != config:
            adapted.save()
        return adapted

    @classmethod
    def load(cls, home: Path) -> ClusterConfig:
        """What ``ensure`` wrote. Raises ConfigError when there is nothing or it is not understood."""
        home = home.absolute()
        path = cls.path(home)
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"there is no cluster in {home}: {path} does not exist") from None
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} cannot be read: {error}") from error
        members = tuple(_parse_nodes(path, data))
        founders = data.get("founders", [node.id for node in members])
        if not isinstance(founders, list) or not all(isinstance(id_, int) for id_ in founders):
            raise ConfigError(f"{path}: 'founders' must be a list of node ids, not {founders!r}")
        return cls(home, _text(path, data, "cluster_id"), _text(path, data, "name"), members, tuple(founders))

    def save(self) -> None:
        """Write cluster.json so that a crash leaves the old one or the new one, whole."""
        nodes = [asdict(node) for node in self.nodes]
        text = json.dumps(
            {
                "cluster_id": self.cluster_id,
                "name": self.name,
                "founders": list(self.founders),
                "nodes": nodes,
            },
            indent=2,
        )
        write_atomically(self.path(self.home), (text + "\n").encode())

    @staticmethod
    def path(home: Path) -> Path:
        """Where the configuration of the cluster under ``home`` lies."""
        return home / "cluster" / "cluster.json"

    @property
    def secret_path(self) -> Path:
        """Where the secret shared by all nodes lies, in hexadecimal, readable by its owner alone."""
        return self.home / "cluster" / "secret"

    def secret(self) -> bytes:
        """The 32 bytes that prove a peer or the console to a node.

        Raises ConfigError when the file is missing, malformed, or readable by others.
        """
        path = self.secret_path
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
            text = path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the cluster's secret cannot be read: {error}") from error
        if mode & 0o077:
            raise ConfigError(f"{path} is open to other users (mode {mode:o}); run: chmod 600 {path}")
        try:
            secret = bytes.fromhex(text)
        except ValueError:
            secret = b""
        if len(secret) != SECRET_BYTES:
            raise ConfigError(f"{path} does not hold {SECRET_BYTES} bytes in hexadecimal; restore it")
        return secret

    def node(self, name: str) -> NodeConfig:
        """The node called ``name``. Raises ConfigError when there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        known = ", ".join(node.name for node in self.nodes)
        raise ConfigError(f"the cluster in {self.home} has no node {name!r}; it has {known}")

    def data_dir(self, name: str) -> Path:
        """Where the node called ``name`` keeps its data."""
        return self.home / "cluster" / name

    def pid_path(self, name: str) -> Path:
        """Where the running node called ``name`` writes its process id."""
        return self.data_dir(name) / "node.pid"


def write_atomically(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace ``path`` by ``data``: on disk when this returns, and never half of it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _lay_out(
    ids: Iterable[int], base: int, present: dict[int, NodeConfig] | None = None
) -> tuple[NodeConfig, ...]:
    nodes = []
    for offset, number in enumerate(ids):
        amqp = base + offset
        old = (present or {}).get(number)
        nodes.append(
            NodeConfig(
                id=number,
                name=old.name if old else f"node{number}",
                host=old.host if old else LOOPBACK,
                amqp=amqp,
                peer=_shifted(amqp, _PEER_OFFSET),
                control=_shifted(amqp, _CONTROL_OFFSET),
            )
        )
    if not 1 <= len(nodes) <= MAX_NODES:
        raise ConfigError(
            f"a cluster has 1 to {MAX_NODES} nodes, not {len(nodes)}; change MQ_NODES (or --nodes)"
        )
    _check_ports(nodes)
    return tuple(nodes)


def _shifted(port: int, offset: int) -> int:
    return port + offset if port + offset <= _MAX_PORT else port - offset


def _check_ports(nodes: list[NodeConfig]) -> None:
    taken: dict[tuple[str, int], str] = {}
    for node in nodes:
        for role, port in (("AMQP", node.amqp), ("peer", node.peer), ("control", node.control)):
            what = f"the {role} port of {node.name}"
            if not 1 <= port <= _MAX_PORT:
                raise ConfigError(
                    f"{what} would be {port}, outside 1..{_MAX_PORT}; change MQ_AMQP_PORT (or --amqp-port)"
                )
            other = taken.setdefault((node.host, port), what)
            if other != what:
                raise ConfigError(
                    f"{other} and {what} would both be {port}; change MQ_AMQP_PORT (or --amqp-port)"
                )


def _parse_nodes(path: Path, data: dict[str, Any]) -> list[NodeConfig]:
    rows = data.get("nodes")
    if not isinstance(rows, list) or not rows:
        raise ConfigError(f"{path}: 'nodes' must be a list of at least one node, not {rows!r}")
    nodes = []
    for row in rows:
        if not isinstance(row, dict):
            raise ConfigError(f"{path}: a node must be an object, not {row!r}")
        number, name = _number(path, row, "id"), _text(path, row, "name")
        if name in (".", "..") or not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
            raise ConfigError(f"{path}: a node's name has letters, digits, '-', '_' and '.', not {name!r}")
        nodes.append(
            NodeConfig(
                number,
                name,
                _text(path, row, "host"),
                _number(path, row, "amqp"),
                _number(path, row, "peer"),
                _number(path, row, "control"),
            )
        )
    for key in ("id", "name"):
        values = [getattr(node, key) for node in nodes]
        if len(set(values)) != len(values):
            raise ConfigError(f"{path}: two nodes have the same {key}: {values}")
    _check_ports(nodes)
    return nodes


def _text(path: Path, row: Any, key: str) -> str:
    value = row.get(key) if isinstance(row, dict) else None
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{path}: {key!r} must be a text, not {value!r}")
    return value


def _number(path: Path, row: dict[str, Any], key: str) -> int:
    value = row.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MAX_PORT:
        raise ConfigError(f"{path}: {key!r} must be a whole number in 1..{_MAX_PORT}, not {value!r}")
    return value


def _write_secret(path: Path) -> None:
    if not path.exists():
        write_atomically(path, secrets.token_hex(SECRET_BYTES).encode() + b"\n", mode=0o600)
