"""Full disks heal, failed syncs do not."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from brokers.engine.core.raft.records import HardState
from brokers.engine.storage.errors import LogFailed, LogFull
from tests.unit.storage.opened import SMALL, QuickDisk, entry


class FailingDisk(QuickDisk):
    """Fails the calls it is told to, as often as it is told to."""

    def __init__(self) -> None:
        self.failing: dict[str, tuple[int, int]] = {}
        self.calls: list[str] = []
        self.room: int | None = None

    def fail(self, call: str, code: int, times: int = 1) -> None:
        self.failing[call] = (code, times)

    def _call(self, name: str) -> None:
        self.calls.append(name)
        code, times = self.failing.get(name, (0, 0))
        if times:
            self.failing[name] = (code, times - 1)
            raise OSError(code, os.strerror(code))

    def pwritev(self, fd: int, buffers: Sequence[bytes | memoryview], offset: int) -> int:
        self._call("pwritev")
        if self.room is None:
            return super().pwritev(fd, buffers, offset)
        data = b"".join(bytes(buffer) for buffer in buffers)[: self.room]
        if not data:
            raise OSError(errno.ENOSPC, "no space left")
        self.room -= len(data)
        return os.pwrite(fd, data, offset)

    def sync(self, fd: int, path: Path) -> None:
        self._call("sync")

    def sync_all(self, fd: int, path: Path) -> None:
        self._call("sync_all")

    def allocate(self, fd: int, size: int) -> None:
        self._call("allocate")
        super().allocate(fd, size)


class GatedDisk(QuickDisk):
    """A disk whose syncs wait until they are let through."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = threading.Event()

    def sync(self, fd: int, path: Path) -> None:
        self.waiting.set()
        self.gate.wait()


def test_a_failed_sync_is_not_retried_and_ends_the_log(reopen):
    disk = FailingDisk()
    log = reopen(disk=disk)
    log.write(entry(1, 1))
    disk.fail("sync", errno.EIO)
    log.append(entry(1, 2))
    log.until(lambda: log.failures != [])
    assert [error.errno for error in log.failures] == [errno.EIO]
    assert log.synced == 1
    with pytest.raises(LogFailed, match=r"takes no more records.*restart the node"):
        log.append(entry(1, 3))
    assert disk.calls[-1] == "sync"
    assert log.log.stats().failed
    assert log.payloads(1, 1, 1) == [entry(1, 1)]


@pytest.mark.parametrize("call", ["pwritev", "sync_all"])
def test_an_error_of_the_device_ends_the_log(reopen, call):
    disk = FailingDisk()
    log = reopen(disk=disk)
    disk.fail(call, errno.EIO)
    log.append(entry(1, 1, size=9000))
    log.append(entry(1, 2))
    log.until(lambda: log.failures != [])
    with pytest.raises(LogFailed):
        log.append(entry(1, 3))


def test_a_full_disk_loses_nothing_and_heals(reopen):
    disk = FailingDisk()
    log = reopen(replace(SMALL, segment_bytes=1 << 20, preallocate=False), disk)
    log.write(entry(1, 1))
    size = log.log.stats().bytes
    disk.room = 1000
    log.append(entry(1, 2, size=900), entry(1, 3, size=900))
    log.until(lambda: log.failures != [])
    assert isinstance(log.failures[0], LogFull)
    assert "free disk space" in str(log.failures[0])
    path = log.folder / "00000001.log"
    log.until(lambda: path.stat().st_size <= size)
    assert log.log.stats().full
    assert log.payloads(1, 3, 3) == [entry(1, 3, size=900)]
    disk.room = None
    log.until(lambda: log.synced == 2)
    assert not log.log.stats().full
    assert len(log.failures) == 1
    log = reopen()
    assert log.images[1].damaged is None
    assert log.payloads(1, 1, 3) == [entry(1, 1), entry(1, 2, size=900), entry(1, 3, size=900)]


def test_no_room_for_the_next_segment_heals_too(reopen):
    disk = FailingDisk()
    log = reopen(disk=disk)
    log.write(entry(1, 1, size=7000))
    disk.room = 100
    log.append(entry(1, 2, size=7000))
    log.until(lambda: log.failures != [])
    disk.room = None
    log.until(lambda: log.synced == 2)
    log = reopen()
    assert log.payloads(1, 1, 2) == [entry(1, 1, size=7000), entry(1, 2, size=7000)]


def test_no_room_to_preallocate_is_no_failure(reopen):
    disk = FailingDisk()
    disk.fail("allocate", errno.ENOSPC, 1000)
    log = reopen(disk=disk)
    log.write_each([entry(1, index, size=3000) for index in range(1, 10)])
    assert log.failures == []
    assert log.log.stats().segments > 2


def test_a_log_closed_while_the_disk_is_full_says_so(reopen):
    disk = FailingDisk()
    log = reopen(disk=disk)
    log.write(entry(1, 1))
    disk.room = 0
    log.append(entry(1, 2))
    log.until(lambda: log.log.stats().full)
    log.log.close()
    assert isinstance(log.failures[-1], LogFull)
    log = reopen()
    assert log.payloads(1, 1, 9) == [entry(1, 1)]


def test_a_real_limit_on_file_size(tmp_path):
    code = f"""
import resource, sys, threading
from pathlib import Path
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, resource.RLIM_INFINITY))
from tests.unit.storage.opened import Opened, entry
from brokers.engine.storage.settings import LogSettings
log = Opened(Path({str(tmp_path / "log")!r}), LogSettings(preallocate=False, retry_after=0.01))
log.write(entry(1, 1, size=8000))
log.append(entry(1, 2, size=16000))
log.until(lambda: log.failures != [])
print(type(log.failures[0]).__name__, log.synced)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.until(lambda: log.synced == 2)
log.log.close()
print("healed")
"""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert limit[1] == resource.RLIM_INFINITY
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert found.stdout.split() == ["LogFull", "1", "healed"], found.stderr


def test_a_stalled_disk_shows(reopen):
    disk = GatedDisk()
    log = reopen(disk=disk)
    log.write(entry(1, 1))
    log.until(lambda: log.log.stalled_for(1e12) == 0.0)
    disk.gate.clear()
    disk.waiting.clear()
    log.append(entry(1, 2))
    assert disk.waiting.wait(20)
    now = 1e12
    assert log.log.stalled_for(now) > 1e11
    assert log.log.stalled_for(now + 5) - log.log.stalled_for(now) == pytest.approx(5, abs=1e-3)
    disk.gate.set()
    log.until(lambda: log.log.stalled_for(now) == 0.0)


def test_what_comes_during_a_sync_goes_out_as_one_batch(reopen):
    disk = GatedDisk()
    log = reopen(replace(SMALL, mark_after=60.0), disk)
    disk.gate.clear()
    log.append(entry(1, 1))
    assert disk.waiting.wait(20)
    for index in range(2, 20):
        log.append(entry(1, index))
    log.append(HardState(1, 3, 1))
    stats = log.log.stats()
    assert (stats.queued_calls, stats.syncs) == (19, 0)
    disk.gate.set()
    log.until(lambda: log.synced == 20)
    assert log.log.stats().syncs == 2


def test_only_durable_records_are_reported(reopen):
    disk = GatedDisk()
    log = reopen(disk=disk)
    disk.gate.clear()
    log.append(entry(1, 1))
    assert disk.waiting.wait(20)
    assert log.synced == 0
    assert log.payloads(1, 1, 1) == [entry(1, 1)]
    disk.gate.set()
    log.until(lambda: log.synced == 1)


def test_unsynced_entries_stay_in_memory_whatever_the_limit(reopen):
    disk = GatedDisk()
    log = reopen(disk=disk)
    disk.gate.clear()
    entries = [entry(1, index, size=1000) for index in range(1, 50)]
    for item in entries:
        log.append(item)
    assert log.log.stats().cached_bytes == 49_000
    assert log.payloads(1, 1, 49) == entries
    disk.gate.set()
    log.until(lambda: log.synced == 49)
    log.until(lambda: log.log.stats().cached_bytes == 0)
