"""Celery on the embedded cluster: retries, ETA tasks, chords, remote control, RPC results, fail-over."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from celery import chord, group

from mqconsole.supervisor.program import end_with_parent
from tests.cluster.harness import Cluster

APP = """
import os

from celery import Celery

app = Celery("app", set_as_current=False)
app.conf.update(
    broker_url=os.environ["TEST_BROKER"],
    result_backend=os.environ["TEST_BACKEND"],
    broker_connection_retry_on_startup=True,
    broker_transport_options={"confirm_publish": True},
    task_acks_late=True,
    task_default_queue=os.environ["TEST_QUEUE"],
    worker_prefetch_multiplier=1,
    worker_cancel_long_running_tasks_on_connection_loss=False,
)


@app.task
def add(x, y):
    return x + y


@app.task
def total(numbers):
    return sum(numbers)


@app.task(bind=True, max_retries=5)
def third_time_lucky(self):
    if self.request.retries < 2:
        raise self.retry(countdown=0.1)
    return self.request.retries
"""
WORKER_READY = 60.0
RESULT = 60.0


class Worker:
    """A worker process, and the same app in this process to talk to it."""

    def __init__(self, cluster: Cluster, folder: Path, queue: str, backend: str) -> None:
        folder.mkdir()
        (folder / "results").mkdir()
        self.path = folder / f"{queue}_app.py"
        self.path.write_text(APP)
        urls = [f"amqp://guest:guest@127.0.0.1:{node.amqp}//" for node in cluster.config.nodes]
        self._settings = {
            "TEST_BROKER": ";".join(urls),
            "TEST_BACKEND": backend.format(folder=folder / "results"),
            "TEST_QUEUE": queue,
        }
        self.name = f"{queue}@test"
        self.log = folder / "worker.log"
        self.app = self._load()
        command = ["-m", "celery", "-A", self.path.stem, "worker", "-n", self.name, "-c", "2", "-l", "INFO"]
        plain = {key: value for key, value in os.environ.items() if key != "DJANGO_SETTINGS_MODULE"}
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                cwd=folder,
                env={**plain, **self._settings},
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=end_with_parent(),
            )

    def _load(self) -> ModuleType:
        with pytest.MonkeyPatch.context() as patch:
            for key, value in self._settings.items():
                patch.setenv(key, value)
            spec = importlib.util.spec_from_file_location(self.path.stem, self.path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        return module

    def answers(self) -> bool:
        """Whether it answers a ping."""
        assert self.process.poll() is None, self.log.read_text()
        replies = self.app.app.control.inspect(timeout=1.0).ping() or {}
        return replies.get(self.name) == {"ok": "pong"}

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="module")
def celery_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("celery") / "home") as cluster:
        yield cluster.start()


def started(cluster: Cluster, folder: Path, queue: str, backend: str) -> Iterator[Worker]:
    worker = Worker(cluster, folder, queue, backend)
    try:
        cluster.wait_for(worker.answers, "celery inspect ping is answered", WORKER_READY)
        yield worker
    except BaseException:
        print(worker.log.read_text())
        raise
    finally:
        worker.stop()


@pytest.fixture(scope="module")
def worker(celery_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker whose results are files."""
    yield from started(celery_cluster, tmp_path_factory.mktemp("worker") / "files", "work", "file://{folder}")


@pytest.fixture
def rpc_worker(celery_cluster: Cluster, tmp_path: Path) -> Iterator[Worker]:
    """A worker whose results are messages."""
    yield from started(celery_cluster, tmp_path / "rpc", "rpcwork", "rpc://")


def test_retries(worker: Worker) -> None:
    assert worker.app.third_time_lucky.delay().get(timeout=RESULT) == 2


def test_many_eta_tasks_wait_without_holding_up_others(worker: Worker) -> None:
    """More of them than the worker's prefetch limit: it raises the limit of a consumer that runs."""
    late = group(worker.app.add.s(i, i).set(countdown=3) for i in range(20)).apply_async()
    assert worker.app.add.delay(1, 1).get(timeout=RESULT) == 2
    assert not late.ready()
    assert late.get(timeout=RESULT) == [2 * i for i in range(20)]


def test_chords(worker: Worker) -> None:
    tasks = chord([worker.app.add.s(i, 1) for i in range(10)], worker.app.total.s())
    assert tasks.apply_async().get(timeout=RESULT) == sum(range(10)) + 10


def test_remote_control(worker: Worker) -> None:
    inspect = worker.app.app.control.inspect(timeout=1.5)
    assert inspect.ping() == {worker.name: {"ok": "pong"}}
    assert f"{worker.path.stem}.add" in inspect.registered()[worker.name]
    assert inspect.stats()[worker.name]["pool"]["max-concurrency"] == 2
    [queue] = inspect.active_queues()[worker.name]
    assert queue["name"] == "work"


def test_results_by_messages(rpc_worker: Worker) -> None:
    results = [rpc_worker.app.add.delay(i, i) for i in range(20)]
    assert [result.get(timeout=RESULT) for result in results] == [2 * i for i in range(20)]


def test_worker_and_sender_survive_the_leaders_end(worker: Worker, celery_cluster: Cluster) -> None:
    cluster = celery_cluster
    for _ in range(2):
        leader = cluster.leader("work")
        before = [worker.app.add.delay(i, i) for i in range(50)]
        cluster.kill(leader)
        after = [worker.app.add.delay(i, i) for i in range(50)]
        expected = [2 * i for i in range(50)]
        assert [result.get(timeout=RESULT) for result in before] == expected
        assert [result.get(timeout=RESULT) for result in after] == expected
        cluster.start_node(leader)
        cluster.wait_until_running(leader)
    cluster.wait_for(worker.answers, "celery inspect ping is answered after the fail-overs", WORKER_READY)
