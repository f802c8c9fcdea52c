from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from brokers.engine.config import ClusterConfig, ConfigError, write_atomically


def test_a_cluster_is_made_once_and_found_again(tmp_path: Path) -> None:
    made = ClusterConfig.ensure(tmp_path)
    assert [(n.id, n.name, n.host, n.amqp, n.peer, n.control) for n in made.nodes] == [
        (1, "node1", "127.0.0.1", 5672, 25672, 15672),
        (2, "node2", "127.0.0.1", 5673, 25673, 15673),
        (3, "node3", "127.0.0.1", 5674, 25674, 15674),
    ]
    assert ClusterConfig.ensure(tmp_path) == ClusterConfig.load(tmp_path) == made
    assert len(made.secret()) == 32
    assert ClusterConfig.load(tmp_path).secret() == made.secret()
    assert stat.S_IMODE(made.secret_path.stat().st_mode) == 0o600


def test_two_clusters_have_nothing_in_common(tmp_path: Path) -> None:
    one, two = ClusterConfig.ensure(tmp_path / "1"), ClusterConfig.ensure(tmp_path / "2")
    assert one.cluster_id != two.cluster_id
    assert one.secret() != two.secret()


def test_ports_follow_the_asked_base_and_stay_without_one(tmp_path: Path) -> None:
    made = ClusterConfig.ensure(tmp_path, amqp_port=60000)
    assert (made.nodes[0].control, made.nodes[0].peer) == (50000, 40000)
    moved = ClusterConfig.ensure(tmp_path, amqp_port=7000)
    assert [node.amqp for node in moved.nodes] == [7000, 7001, 7002]
    assert moved.cluster_id == made.cluster_id
    assert ClusterConfig.ensure(tmp_path) == moved


def test_a_cluster_grows_and_never_shrinks_by_a_setting(tmp_path: Path) -> None:
    ClusterConfig.ensure(tmp_path, nodes=3)
    grown = ClusterConfig.ensure(tmp_path, nodes=5)
    assert [node.name for node in grown.nodes] == ["node1", "node2", "node3", "node4", "node5"]
    assert len(ClusterConfig.ensure(tmp_path).nodes) == 5
    with pytest.raises(ConfigError, match="has 5 nodes, 3 were asked for"):
        ClusterConfig.ensure(tmp_path, nodes=3)
    assert len(ClusterConfig.load(tmp_path).nodes) == 5


@pytest.mark.parametrize(
    ("nodes", "port", "complaint"),
    [
        (0, 5672, "1 to 9 nodes, not 0"),
        (10, 5672, "1 to 9 nodes, not 10"),
        (3, 0, "AMQP port of node1 would be 0, outside"),
        (3, 65534, "AMQP port of node3 would be 65536, outside"),
        (3, -20000, "outside"),
    ],
)
def test_impossible_wishes_are_refused(tmp_path: Path, nodes: int, port: int, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        ClusterConfig.ensure(tmp_path, nodes=nodes, amqp_port=port)
    assert not ClusterConfig.path(tmp_path).exists()


def test_a_secret_open_to_others_is_not_used(tmp_path: Path) -> None:
    config = ClusterConfig.ensure(tmp_path)
    config.secret_path.chmod(0o640)
    with pytest.raises(ConfigError, match=r"open to other users \(mode 640\)"):
        config.secret()


def test_a_lost_secret_is_not_replaced_silently(tmp_path: Path) -> None:
    ClusterConfig.ensure(tmp_path).secret_path.unlink()
    with pytest.raises(ConfigError, match="secret cannot be read"):
        ClusterConfig.ensure(tmp_path)


def test_data_without_its_configuration_is_not_given_to_a_new_cluster(tmp_path: Path) -> None:
    config = ClusterConfig.ensure(tmp_path)
    config.data_dir("node1").mkdir()
    config.path(tmp_path).unlink()
    with pytest.raises(ConfigError, match=r"no cluster.json"):
        ClusterConfig.ensure(tmp_path)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"nodes": []}, "at least one node"),
        ({"nodes": [3]}, "must be an object"),
        ({"cluster_id": 7}, "'cluster_id' must be a text"),
        ({"name": ""}, "'name' must be a text"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, change: dict[str, object], complaint: str) -> None:
    path = ClusterConfig.path(ClusterConfig.ensure(tmp_path).home)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ConfigError, match=complaint) as caught:
        ClusterConfig.load(tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"id": 2}, "same id"),
        ({"name": "node2"}, "same name"),
        ({"name": "../x"}, "a node's name has"),
        ({"amqp": True}, "'amqp' must be a whole number"),
        ({"amqp": 5673}, "would both be 5673"),
        ({"peer": 70000}, "'peer' must be a whole number"),
    ],
)
def test_a_damaged_node_is_named(tmp_path: Path, change: dict[str, object], complaint: str) -> None:
    path = ClusterConfig.path(ClusterConfig.ensure(tmp_path).home)
    data = json.loads(path.read_text())
    data["nodes"][0] |= change
    path.write_text(json.dumps(data))
    with pytest.raises(ConfigError, match=complaint):
        ClusterConfig.load(tmp_path)


def test_nothing_and_nonsense_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no cluster in"):
        ClusterConfig.load(tmp_path)
    ClusterConfig.path(ClusterConfig.ensure(tmp_path).home).write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        ClusterConfig.load(tmp_path)


def test_an_unknown_node_is_named_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no node 'node7'; it has node1, node2"):
        ClusterConfig.ensure(tmp_path, nodes=2).node("node7")


def test_a_failed_write_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "text")  # type: ignore[arg-type]  # makes the write fail
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
