"""What a backup is made of, and what is refused."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import zstandard

from brokers.adapters.blocks import Block, BlockReader
from brokers.backups import parts
from brokers.backups.digest import Digest
from brokers.backups.errors import BackupError
from brokers.backups.keys import Keys
from brokers.backups.manifest import DEFINITIONS, FILE_NAME, Manifest, SavedQueue
from brokers.backups.reader import Archive, recut
from brokers.backups.store import Store

NAME = "local-20260101-000000-abcd"


def message(body: bytes) -> bytes:
    route, header = b"\0\x01q", b"\0\x3c" + bytes(12)
    return struct.pack(">HI", len(route), len(header)) + route + header + body


def block(first: int, *bodies: bytes) -> Block:
    messages = [message(body) for body in bodies]
    ends, size = [], 0
    for item in messages:
        size += len(item)
        ends.append(size)
    return Block(first, 1_700_000_000_000, tuple(ends), b"".join(messages))


BLOCKS = [block(7, b"one", b"", b"x" * 5000), block(11, b"two")]


def digest_of(found: list[Block]) -> Digest:
    digest = Digest()
    for item in found:
        digest.add(item)
    return digest


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Keys:
    monkeypatch.setenv("MQ_BACKUP_KEY", "a key for tests alone")
    return Keys.load()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "backups"))


@pytest.fixture
def manifest(store: Store, keys: Keys) -> Manifest:
    definitions = parts.put(store, keys, NAME, DEFINITIONS, json.dumps({"queues": []}).encode())
    raw = b"".join(item.encode() for item in BLOCKS)
    part = parts.put(store, keys, NAME, parts.part_path(1, 1), raw, digest_of(BLOCKS))
    queue = SavedQueue("/", "q", {}, 4, 5006, 0, "node1", (part,))
    made = Manifest(NAME, "cafe", "local", 1.0, 2.0, 3.0, True, definitions, (queue,))
    made.write(store, keys)
    return made


def part_file(tmp_path: Path) -> Path:
    return tmp_path / "backups" / NAME / "queues" / "000001" / "000001.mqb.zst"


def test_what_was_written_is_read_again(store: Store, keys: Keys, manifest: Manifest) -> None:
    archive = Archive(store, NAME, keys)
    assert archive.manifest == manifest
    assert archive.definitions() == {"queues": []}
    found = archive.part(manifest.queues[0].parts[0])
    assert [(b.first, tuple(b.ends), b.data) for b in found] == [(b.first, b.ends, b.data) for b in BLOCKS]
    assert store.names() == [NAME]


def test_nothing_readable_is_stored(store: Store, keys: Keys, manifest: Manifest, tmp_path: Path) -> None:
    assert b"xxxx" not in part_file(tmp_path).read_bytes()


@pytest.mark.parametrize("at", [0, 20, -1])
def test_one_bit_of_a_file(store: Store, keys: Keys, manifest: Manifest, tmp_path: Path, at: int) -> None:
    data = bytearray(part_file(tmp_path).read_bytes())
    data[at] ^= 1
    part_file(tmp_path).write_bytes(data)
    with pytest.raises(BackupError, match="damaged"):
        Archive(store, NAME, keys).check(manifest.queues[0].parts[0])


def test_a_file_cut_off_or_gone(store: Store, keys: Keys, manifest: Manifest, tmp_path: Path) -> None:
    part = manifest.queues[0].parts[0]
    part_file(tmp_path).write_bytes(part_file(tmp_path).read_bytes()[:-5])
    with pytest.raises(BackupError, match="cut off"):
        Archive(store, NAME, keys).check(part)
    part_file(tmp_path).unlink()
    with pytest.raises(BackupError, match="missing"):
        Archive(store, NAME, keys).check(part)


def rewrite(store: Store, change: Callable[[dict[str, Any]], None], keys: Keys | None = None) -> None:
    outer = json.loads(store.read(NAME, FILE_NAME, 1 << 20))
    change(outer["manifest"])
    if keys is not None:
        content = json.dumps(outer["manifest"], sort_keys=True, separators=(",", ":")).encode()
        outer["signature"] = keys.sign(content)
    store.write(NAME, FILE_NAME, json.dumps(outer).encode())


def test_a_changed_manifest(store: Store, keys: Keys, manifest: Manifest) -> None:
    rewrite(store, lambda content: content["queues"][0].update(name="other"))
    with pytest.raises(BackupError, match="changed after it was signed"):
        Archive(store, NAME, keys)


def test_a_newer_format(store: Store, keys: Keys, manifest: Manifest) -> None:
    rewrite(store, lambda content: content.update(format=2, news=[]), keys)
    with pytest.raises(BackupError, match="newer release"):
        Archive(store, NAME, keys)


def test_a_foreign_key(store: Store, manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MQ_BACKUP_KEY", "another key for tests")
    with pytest.raises(BackupError, match="another key"):
        Archive(store, NAME, Keys.load())


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "queues/000001/../x", FILE_NAME, ""])
def test_a_path_that_leads_elsewhere(store: Store, keys: Keys, manifest: Manifest, path: str) -> None:
    rewrite(store, lambda content: content["queues"][0]["parts"][0].update(path=path), keys)
    with pytest.raises(BackupError, match="no file of a backup"):
        Archive(store, NAME, keys)


@pytest.mark.parametrize("name", ["..", "../x", "a/b", "", ".hidden", "A"])
def test_a_name_that_leads_elsewhere(store: Store, name: str) -> None:
    with pytest.raises(BackupError, match="no name"):
        store.read(name, FILE_NAME, 10)


def test_a_bomb(store: Store, keys: Keys, manifest: Manifest) -> None:
    bomb = keys.seal(zstandard.ZstdCompressor().compress(bytes(64 << 20)), f"{NAME}/{parts.part_path(1, 1)}")
    store.write(NAME, parts.part_path(1, 1), bomb)
    honest = manifest.queues[0].parts[0]
    lie = replace(honest, size=len(bomb), sha256=hashlib.sha256(bomb).hexdigest())
    rewrite(store, lambda content: content["queues"][0].update(parts=[asdict(lie)]), keys)
    archive = Archive(store, NAME, keys)
    with pytest.raises(BackupError, match="another size"):
        archive.part(archive.manifest.queues[0].parts[0])
    rewrite(store, lambda content: content["queues"][0]["parts"][0].update(raw=1 << 40), keys)
    with pytest.raises(BackupError, match="beyond the limit"):
        Archive(store, NAME, keys)


def test_a_file_in_the_place_of_another(store: Store, keys: Keys, manifest: Manifest) -> None:
    part = manifest.queues[0].parts[0]
    moved = replace(part, path=parts.part_path(1, 2))
    store.write(NAME, moved.path, store.read(NAME, part.path, part.size))
    with pytest.raises(BackupError, match="decrypted"):
        parts.get(store, keys, NAME, moved, encrypted=True)


def test_blocks_in_pieces_of_any_size() -> None:
    raw = b"".join(item.encode() for item in BLOCKS)
    for size in (1, 7, 4096, len(raw)):
        reader = BlockReader()
        found = [b for at in range(0, len(raw), size) for b in reader.feed(raw[at : at + size])]
        reader.finish()
        assert [b.data for b in found] == [b.data for b in BLOCKS]
    reader = BlockReader()
    reader.feed(raw[:-1])
    with pytest.raises(ValueError, match="incomplete"):
        reader.finish()


@pytest.mark.parametrize("ends", [(9, 30), (0,), (31,)])
def test_blocks_whose_lengths_lie(ends: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="block at position|does not fit"):
        BlockReader().feed(Block(0, 0, ends, message(b"x" * 7)[:30].ljust(30, b"\xff")).encode())


def test_digests_do_not_depend_on_blocks() -> None:
    whole = [block(0, b"a", b"bb", b"ccc", b"dddd")]
    for counts in ([4], [1, 3], [2, 2], [3, 1], [1, 1, 1, 1]):
        pieces = list(recut(iter(whole), counts))
        assert [sum(len(b.ends) for b in group) for group in pieces] == counts
        assert digest_of([b for group in pieces for b in group]).hexdigest() == digest_of(whole).hexdigest()
    assert digest_of([block(0, b"ab", b"b")]).hexdigest() != digest_of([block(0, b"a", b"bb")]).hexdigest()


def test_a_short_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MQ_BACKUP_KEY", "short")
    with pytest.raises(BackupError, match="openssl rand"):
        Keys.load()
