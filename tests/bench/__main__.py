"""``make bench``: messages a second, confirmed and delivered, beside RabbitMQ where that is installed.

One publisher (window 500) and one consumer (prefetch 500), 1 KiB, three nodes that sync to disk; medians of
several runs taken in turns, because machines are noisy. Prints a table and writes ``bench.json`` to the
working folder. Asserts nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.bench import rabbitmq
from tests.bench.throughput import measure
from tests.cluster.harness import Cluster, free_base


def run(port: int, seconds: float, quorum: bool) -> dict[str, Any]:
    """One measurement."""
    options = argparse.Namespace(
        port=port,
        consumer_port=None,
        seconds=seconds,
        warmup=2.0,
        size=1024,
        window=500,
        prefetch=500,
        quorum=quorum,
    )
    return measure(options)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--output", type=Path, default=Path("bench.json"))
    options = parser.parse_args()
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cluster = stack.enter_context(Cluster(home / "mqconsole")).start()
        brokers = {"mqconsole": (cluster.node("node1").amqp, False)}
        if rabbitmq.is_installed():
            base = free_base(3)
            rabbit = rabbitmq.RabbitCluster(home / "rabbitmq", [base, base + 1, base + 2])
            (home / "rabbitmq").mkdir()
            stack.enter_context(rabbit)
            brokers["RabbitMQ quorum queue"] = (base, True)
        else:
            print("RabbitMQ is not installed: measured alone", file=sys.stderr)
        results: dict[str, list[int]] = {name: [] for name in brokers}
        for _ in range(options.runs):
            for name, (port, quorum) in brokers.items():
                results[name].append(int(run(port, options.seconds, quorum)["delivered_per_second"]))
    medians = {name: statistics.median(rates) for name, rates in results.items()}
    reference = medians.get("RabbitMQ quorum queue")
    print(f"{'':24}{'msg/s (median)':>16}{'ratio':>8}  runs")
    for name, rates in results.items():
        ratio = f"{medians[name] / reference:.1f}" if reference else "-"
        print(f"{name:24}{medians[name]:16,.0f}{ratio:>8}  {rates}")
    report = {"cores": os.cpu_count(), "runs": results, "medians": medians}
    options.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
