"""What a log should hold after each call of ``append``, and whether one holds just that."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, field

from brokers.engine.core.raft.records import Entry, HardState, Record, Removed, Snapshot
from tests.unit.storage.opened import Opened, entry


@dataclass
class GroupModel:
    entries: dict[int, Entry] = field(default_factory=dict)
    hard: HardState | None = None
    snapshot: Snapshot | None = None

    @property
    def last(self) -> int:
        base = self.snapshot.index if self.snapshot else 0
        return max(self.entries, default=base)

    @property
    def term(self) -> int:
        return max([item.term for item in self.entries.values()] + [self.hard.term if self.hard else 1])


State = dict[int, GroupModel]


def apply(state: State, records: list[Record]) -> State:
    """The state after a call."""
    state = copy.copy(state)
    for record in records:
        if isinstance(record, Removed):
            state.pop(record.group, None)
            continue
        group = state[record.group] = copy.deepcopy(state.get(record.group, GroupModel()))
        if isinstance(record, Entry):
            group.entries = {key: item for key, item in group.entries.items() if key < record.index}
            group.entries[record.index] = record
        elif isinstance(record, HardState):
            group.hard = record
        else:
            group.entries = {key: item for key, item in group.entries.items() if key >= record.keep_from}
            group.snapshot = record
    return state


def random_call(state: State, rng: random.Random) -> list[Record]:
    """One call as consensus makes them."""
    records: list[Record] = []
    for _ in range(rng.randint(1, 3)):
        number = rng.randint(1, 4)
        group = state.get(number, GroupModel())
        base = group.snapshot.index if group.snapshot else 0
        fate = rng.random()
        made: list[Record] = []
        if fate < 0.6:
            made = [
                entry(number, group.last + 1 + step, group.term, rng.choice((0, 10, 100, 900)))
                for step in range(rng.randint(1, 4))
            ]
        elif fate < 0.7 and group.last > base:
            index = rng.randint(base + 1, group.last)
            term = group.term + 1
            made = [HardState(number, term, 0), entry(number, index, term, 50)]
        elif fate < 0.8:
            made = [HardState(number, group.term + rng.randint(0, 1), rng.randint(1, 3))]
        elif fate < 0.95 and group.entries:
            index = rng.choice(sorted(group.entries))
            if index >= base:
                keep = rng.randint(min(group.entries), index + 1)
                made = [Snapshot(number, index, group.entries[index].term, b"m", b"s" * 30, keep)]
        elif fate > 0.98 and number in state:
            made = [Removed(number)]
        records += made
        state = apply(state, made)
    return records


def difference(log: Opened, state: State) -> str | None:
    """What ``log``, just opened, does not hold as ``state`` says; None when all is as it should be."""
    if set(log.images) - {number for number, group in state.items() if group != GroupModel()}:
        return f"groups {sorted(log.images)} instead of {sorted(state)}"
    for number, group in state.items():
        image = log.images.get(number)
        if image is None:
            if group != GroupModel():
                return f"group {number} is missing"
            continue
        if image.damaged is not None:
            return f"group {number} damaged from {image.damaged}"
        if image.snapshot != group.snapshot:
            return f"group {number}: snapshot {image.snapshot} instead of {group.snapshot}"
        if group.hard is not None and image.hard != group.hard:
            return f"group {number}: {image.hard} instead of {group.hard}"
        if image.last != max(group.last, group.snapshot.index if group.snapshot else 0):
            return f"group {number}: last {image.last} instead of {group.last}"
        low = min(group.entries, default=image.last + 1)
        if image.first != low:
            return f"group {number}: first {image.first} instead of {low}"
        if low <= image.last:
            found = log.payloads(number, low, image.last)
            if found != [group.entries[index] for index in range(low, image.last + 1)]:
                return f"group {number}: other entries"
            terms = [(item.index, item.term) for item in found]
            runs = [item for at, item in enumerate(terms) if not at or terms[at - 1][1] != item[1]]
            if image.terms != runs:
                return f"group {number}: terms {image.terms} instead of {runs}"
    return None
