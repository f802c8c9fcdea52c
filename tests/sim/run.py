"""``python -m tests.sim.run --seeds N --start S``: run many seeds; a failure prints its seed and options."""

from __future__ import annotations

import argparse
import sys
import time
import traceback

from tests.sim.options import Options
from tests.sim.world import World


def main() -> int:
    """Run the seeds asked for; the exit status tells whether all held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--keep-going", action="store_true", help="go on after a failure")
    arguments = parser.parse_args()
    started, events, failed = time.perf_counter(), 0, []
    for seed in range(arguments.start, arguments.start + arguments.seeds):
        options = Options.of(seed)
        world = World(options)
        try:
            world.run()
        except Exception:
            failed.append(seed)
            print(f"seed {seed} failed at {world.clock.now:.3f} s: {options}")
            traceback.print_exc(file=sys.stdout)
            if not arguments.keep_going:
                break
        events += world.clock.events
    took = time.perf_counter() - started
    print(f"{arguments.seeds} seeds, {events} events, {took:.1f} s; failed: {failed or 'none'}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
