"""Faults at random, from a seed, on a cluster of real processes under traffic from all its nodes.

``python -m tests.cluster.chaos --seeds 10 --seconds 30`` runs many; ``test_chaos.py`` a few. In the end
everything is healed, drained and checked: nothing confirmed is lost, nothing is invented, out of order or
repeated without a word, all goes on after each fault, the replicas' states are equal, and nothing is left
handed out.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from brokers.engine.config import ClusterConfig
from brokers.engine.control.protocol import ControlError
from brokers.engine.storage.powercut import cut_power
from tests.bench.rawclient import RawClient
from tests.cluster.chaos_links import Network
from tests.cluster.chaos_traffic import ChaosTraffic
from tests.cluster.harness import Cluster

QUEUES = 3
PAUSE = 0.02
PATIENCE = 45.0
"""Seconds that traffic has to go on after a fault was healed."""
PROGRESS = 30
"""Messages of each queue that have to be confirmed, and as many delivered, for it to go on."""
LEAST = 100
"""Confirmed messages a second below which a run is void."""

Heal = Callable[[], None]


class ChaosCluster(Cluster):
    """A cluster whose nodes reach each other through ``network``, and note what is durable."""

    def __init__(self, home: Path, network: Network, nodes: int = 3) -> None:
        super().__init__(home, nodes)
        self.network = network
        for node in self.config.nodes:
            others = [
                replace(other, peer=network.join(node.name, other.name, other.peer))
                if other.id < node.id
                else other
                for other in self.config.nodes
            ]
            own = ClusterConfig(
                self.home_of(node.name),
                self.config.cluster_id,
                self.config.name,
                tuple(others),
                self.config.founders,
            )
            own.save()
            shutil.copy2(self.config.secret_path, own.secret_path)

    def home_of(self, name: str) -> Path:
        return self.config.home / "homes" / name

    def env_of(self, name: str) -> dict[str, str]:
        return {"MQ_TEST_TRACE": str(self.trace(name))}

    def trace(self, name: str) -> Path:
        """What the node noted as durable."""
        return self.home_of(name) / "trace"

    def cut_power(self, name: str, rng: random.Random) -> None:
        """Take from a dead node what was not synced."""
        cut_power(self.home_of(name) / "cluster" / name / "log", self.trace(name), rng)


@dataclass
class Outcome:
    """What a run amounted to."""

    seed: int
    faults: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    longest: float = 0.0
    seconds: float = 0.0


class Chaos:
    """One run."""

    def __init__(self, cluster: ChaosCluster, seed: int, seconds: float) -> None:
        self.cluster = cluster
        self.rng = random.Random(seed)
        self.seconds = seconds
        self.outcome = Outcome(seed)
        self.queues = [f"chaos{i}" for i in range(QUEUES)]
        self.traffic = [ChaosTraffic(queue, seed) for queue in self.queues]
        self._down: set[str] = set()
        self._faults: list[Callable[[], Heal]] = [
            self.kill,
            self.kill,
            self.freeze,
            self.freeze,
            self.restart,
            self.transfer,
            self.transfer,
            self.power_cut,
            self.power_cut_of_one,
            self.cut,
            self.flap,
            self.mute,
            self.mute_one_way,
            self.isolate,
            self.delay,
        ]

    def run(self) -> Outcome:
        """Traffic, faults, and the end's checks."""
        begin = time.monotonic()
        self._start_traffic()
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            faults = self.rng.sample(self._faults, self.rng.choice((1, 1, 1, 2, 2, 3)))
            heals = [fault() for fault in faults]
            time.sleep(self.rng.choice((0.05, 0.3, 1.0, 1.5, 3.0)))
            self.rng.shuffle(heals)
            for heal in heals:
                heal()
            self.go_on(" + ".join(fault.__name__ for fault in faults))
        self.outcome.seconds = time.monotonic() - begin
        self._finish()
        return self.outcome

    def _start_traffic(self) -> None:
        cluster = self.cluster
        ports = [cluster.node(name).amqp for name in cluster.names]
        client = RawClient(ports[0])
        for queue in self.queues:
            client.declare(queue)
        client.socket.close()
        for traffic in self.traffic:
            for i in range(len(ports)):
                traffic.consume(ports[i:] + ports[:i])
                traffic.publish(ports[i:] + ports[:i], pause=PAUSE)
        self.go_on("nothing")

    def go_on(self, after: str) -> None:
        """Wait until all nodes run and every queue's traffic goes on."""
        self.cluster.wait_until_complete()
        for traffic in self.traffic:
            confirmed, delivered = traffic.confirmed() + PROGRESS, traffic.delivered() + PROGRESS
            for what, count, target in (
                ("confirmed", traffic.confirmed, confirmed),
                ("delivered", traffic.delivered, delivered),
            ):
                if not traffic.wait(count, target, PATIENCE):
                    raise AssertionError(
                        f"nothing is {what} any more of {traffic.queue} after {after}; "
                        f"{json.dumps(self._digests(traffic.queue))}"
                    )

    # -- faults: each happens, and returns how it is healed --------------------------------------------

    def _note(self, name: str) -> None:
        self.outcome.faults[name] += 1

    def _victim(self) -> str | None:
        """A node that nothing else has happened to."""
        return self.rng.choice([name for name in self.cluster.names if name not in self._down] or [None])

    def _up(self, name: str) -> None:
        self.cluster.start_node(name)
        self._down.discard(name)

    def kill(self) -> Heal:
        """kill -9"""
        victim = self._victim()
        if victim is None:
            return _nothing
        self._note("kill -9")
        self._down.add(victim)
        self.cluster.kill(victim)
        return lambda: self._up(victim)

    def freeze(self) -> Heal:
        """SIGSTOP"""
        victim = self._victim()
        if victim is None:
            return _nothing
        self._note("freeze")
        self._down.add(victim)
        self.cluster.pause(victim)

        def thaw() -> None:
            self.cluster.resume(victim)
            self._down.discard(victim)

        return thaw

    def restart(self) -> Heal:
        """SIGTERM"""
        victim = self._victim()
        if victim is None:
            return _nothing
        self._note("restart")
        self._down.add(victim)
        assert self.cluster.terminate(victim) == 0
        return lambda: self._up(victim)

    def transfer(self) -> Heal:
        """Leadership moves, perhaps to a node that cannot take it."""
        for queue in self.queues:
            target = self.rng.choice([None, *self.cluster.names])
            try:
                self.cluster.control.call(
                    "transfer_leadership", {"vhost": "/", "name": queue, "target": target}
                )
                self._note("transfer")
            except ControlError:
                self._note("transfer refused")
        return _nothing

    def power_cut(self) -> Heal:
        """All nodes lose power at once."""
        if self._down:
            return _nothing
        self._note("power cut of all")
        for name in self.cluster.names:
            self._down.add(name)
            self.cluster.kill(name)
        for name in self.cluster.names:
            self.cluster.cut_power(name, self.rng)

        def up() -> None:
            for name in self.cluster.names:
                self._up(name)

        return up

    def power_cut_of_one(self) -> Heal:
        """A node loses power."""
        victim = self._victim()
        if victim is None:
            return _nothing
        self._note("power cut of one")
        self._down.add(victim)
        self.cluster.kill(victim)
        self.cluster.cut_power(victim, self.rng)
        return lambda: self._up(victim)

    def cut(self) -> Heal:
        """A pair's connections end, and no new ones come about."""
        self._note("cut")
        pair = self.rng.choice(self.cluster.network.pairs)
        pair.cut = True
        self.cluster.network.sever(pair)
        return self.cluster.network.heal

    def flap(self) -> Heal:
        """A pair's connections end, several times."""
        self._note("flap")
        pair = self.rng.choice(self.cluster.network.pairs)
        for _ in range(self.rng.randint(1, 5)):
            self.cluster.network.sever(pair)
            time.sleep(self.rng.uniform(0.0, 0.4))
        return _nothing

    def mute(self) -> Heal:
        """A pair hears nothing of each other; nobody is told."""
        self._note("mute")
        pair = self.rng.choice(self.cluster.network.pairs)
        for way in pair.ways.values():
            way.muted = True
        return self.cluster.network.heal

    def mute_one_way(self) -> Heal:
        """One of a pair does not hear the other."""
        self._note("mute one way")
        pair = self.rng.choice(self.cluster.network.pairs)
        self.rng.choice(list(pair.ways.values())).muted = True
        return self.cluster.network.heal

    def isolate(self) -> Heal:
        """A node is cut off from all others, silently."""
        self._note("isolate")
        for pair in self.cluster.network.of(self.rng.choice(self.cluster.names)):
            for way in pair.ways.values():
                way.muted = True
        return self.cluster.network.heal

    def delay(self) -> Heal:
        """A pair is slow."""
        self._note("delay")
        pair = self.rng.choice(self.cluster.network.pairs)
        for way in pair.ways.values():
            way.delay = self.rng.choice((0.01, 0.05, 0.2))
        return self.cluster.network.heal

    # -- the end ---------------------------------------------------------------------------------------

    def _finish(self) -> None:
        for traffic in self.traffic:
            history = traffic.finish(60)
            self.outcome.counts.update(history.check())
            self.outcome.counts["requeued"] += traffic.requeued
            self.outcome.longest = max(self.outcome.longest, history.longest_gap())
        for queue in self.queues:
            self.cluster.wait_for(
                partial(self._agree, queue),
                f"all replicas of {queue} have the same state, with nothing left: {self._digests(queue)}",
            )
        faults = sum(self.outcome.faults.values())
        assert faults, "void: no fault happened"
        least = LEAST * self.seconds
        confirmed = self.outcome.counts["confirmed"]
        assert confirmed >= least, f"void: {confirmed} confirmed, {least:g} were to be"

    def _digests(self, queue: str) -> dict[str, Any]:
        digests = {}
        for name in self.cluster.names:
            try:
                digests[name] = self.cluster.control.call(
                    "digest", {"vhost": "/", "name": queue}, node=name, timeout=3
                )
            except ControlError as error:
                digests[name] = {"error": str(error)}
        return digests

    def _agree(self, queue: str) -> bool:
        digests = list(self._digests(queue).values())
        if any("error" in digest for digest in digests):
            return False
        by_index: dict[int, set[str]] = {}
        for digest in digests:
            by_index.setdefault(digest["applied"], set()).add(digest["hash"])
        differing = [index for index, hashes in by_index.items() if len(hashes) > 1]
        assert not differing, f"replicas of {queue} differ at index {differing}: {digests}"
        leaders = [digest["hand_out"] for digest in digests if digest["leads"]]
        left = [name for leader in leaders for name, count in leader.items() if count]
        return len(by_index) == 1 and len(leaders) == 1 and not left and not digests[0]["messages"]


def _nothing() -> None:
    pass


def chaos(home: Path, seed: int, seconds: float) -> Outcome:
    """One run in ``home``. Raises AssertionError that names the seed, with the ends of the nodes' logs."""
    with Network() as network, ChaosCluster(home, network) as cluster:
        cluster.start()
        run = Chaos(cluster, seed, seconds)
        try:
            return run.run()
        except BaseException as error:
            print(cluster.log_tails(60), file=sys.stderr)
            text = f"seed {seed}, {seconds:g} s, faults {dict(run.outcome.faults)}: {error}"
            if isinstance(error, Exception):
                raise AssertionError(text) from error
            raise


def main() -> int:
    """Run many seeds, report each."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.chaos", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--seconds", type=float, default=30, help="how long faults happen in a run")
    parser.add_argument("--keep", type=Path, help="keep the folders of failed runs here")
    options = parser.parse_args()
    failed, total, faults = 0, Counter[str](), Counter[str]()
    for seed in range(options.first, options.first + options.seeds):
        with tempfile.TemporaryDirectory() as home:
            try:
                outcome = chaos(Path(home), seed, options.seconds)
            except AssertionError as error:
                failed += 1
                print(f"FAILED {error}", flush=True)
                if options.keep is not None:
                    shutil.copytree(home, options.keep / f"seed{seed}", dirs_exist_ok=True)
                continue
            total.update(outcome.counts)
            faults.update(outcome.faults)
            print(
                f"seed {seed}: {dict(outcome.counts)}, {sum(outcome.faults.values())} faults, longest gap "
                f"{outcome.longest:.1f} s",
                flush=True,
            )
    print(f"{options.seeds - failed}/{options.seeds} seeds well; {dict(total)}; faults {dict(faults)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
