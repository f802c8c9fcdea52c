from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from mqconsole.supervisor.logs import LogFile


def texts(path: Path) -> list[str]:
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z node1 \| "
    lines = path.read_text().splitlines()
    assert all(re.match(stamp, line) for line in lines)
    return [re.sub(stamp, "", line) for line in lines]


def test_output_in_pieces_becomes_whole_stamped_lines(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "logs" / "node1.log", "node1")
    for piece in (b"on", b"e\ntwo\nth", b"ree"):
        log.feed(piece)
    assert texts(log.path) == ["one", "two"]
    log.close()
    assert texts(log.path) == ["one", "two", "three"]
    assert list(log.tail) == ["one", "two", "three"]
    assert log.path.stat().st_mode & 0o077 == 0


def test_a_line_without_end_does_not_fill_memory(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "node1.log", "node1")
    log.feed(b"x" * 70_000)
    assert texts(log.path) == ["x" * 70_000]
    log.close()


def test_files_stay_small_and_few(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "node1.log", "node1", max_bytes=200)
    for number in range(40):
        log.line(f"line {number}")
    log.close()
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["node1.log", "node1.log.1", "node1.log.2"]
    assert all(path.stat().st_size <= 200 for path in tmp_path.iterdir())
    kept = texts(tmp_path / "node1.log.2") + texts(tmp_path / "node1.log.1") + texts(tmp_path / "node1.log")
    assert kept == [f"line {number}" for number in range(40 - len(kept), 40)]


def test_a_log_is_continued(tmp_path: Path) -> None:
    for text in ("first", "second"):
        log = LogFile(tmp_path / "node1.log", "node1")
        log.line(text)
        log.close()
    assert texts(tmp_path / "node1.log") == ["first", "second"]


def test_a_full_disk_loses_log_lines_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = LogFile(tmp_path / "node1.log", "node1")

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        log.feed(b"a\nb\n")
    log.line("c")
    log.close()
    assert texts(log.path) == ["--- 2 lines could not be written", "c"]
