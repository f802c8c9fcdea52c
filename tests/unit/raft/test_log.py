from __future__ import annotations

import random

import pytest

from brokers.engine.core.raft.log import LogIndex, clip


def test_against_a_plain_list() -> None:
    rng = random.Random(5)
    log, plain, first, term = LogIndex(), [0], 1, 1
    for _ in range(4000):
        action = rng.random()
        if action < 0.7:
            term += rng.random() < 0.2
            plain.append(term)
            assert log.append(term) == len(plain) - 1
        elif action < 0.8 and log.last >= first:
            at = rng.randint(max(first, log.last - 5), log.last)
            if at > log.snapshot_index:
                log.truncate(at)
                del plain[at:]
                term = max(term, plain[-1])
        elif action < 0.85 and log.last > log.snapshot_index:
            index = rng.randint(log.snapshot_index + 1, log.last)
            first = rng.randint(first, index + 1)
            log.compact(index, plain[index], first)
        assert (log.first, log.last, log.last_term) == (first, len(plain) - 1, plain[-1])
        low = rng.randint(max(0, first - 1), log.last)
        assert log.term(low) == plain[low]
        high = rng.randint(low, log.last)
        runs = log.runs(low, high)
        spread = [run[1] for at in range(low, high + 1) for run in [max(r for r in runs if r[0] <= at)]]
        assert spread == plain[low : high + 1]
        index, found = log.possible_match(high, rng.randint(0, term))
        assert index <= high
        assert index < first or plain[index] == found
    assert log.term(log.last + 1) is None
    assert first < 2 or log.term(first - 2) is None or first - 2 == log.snapshot_index


def test_truncating_below_the_log_is_refused() -> None:
    log = LogIndex()
    for _ in range(9):
        log.append(1)
    log.compact(5, 1, 4)
    with pytest.raises(ValueError, match="the log starts at 4"):
        log.truncate(3)


def test_clip() -> None:
    assert clip([(3, 1), (6, 2), (9, 4)], 7) == [(7, 2), (9, 4)]
    assert clip([(3, 1), (6, 2)], 6) == [(6, 2)]
    assert clip([(3, 1)], 1) == [(3, 1)]
