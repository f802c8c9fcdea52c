"""Commands applied once: what was answered to whom.

After a change of leader a node cannot know whether a command of its went through, and sends it again.
Every command is numbered by the process that sent it, ``id: [boot, serial]``, and a number is applied
once; the answer to its repetition is the first one's. A sender that adds ``low``, the lowest serial it
still waits for, lets the answers below be forgotten (RIFL, SOSP 2015, section 3).

All bounds count commands, never time, so that all replicas forget alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Answer = tuple[list[object] | None, object]
"""(error in JSON form or None, value in JSON form)"""

MAX_ANSWERS = 1024
MAX_SESSIONS = 1024
MAX_ENDED = 1024


class Session:
    """The answers given to one boot. Serials below ``floor`` are not known any more."""

    __slots__ = ("answers", "floor")

    def __init__(self, floor: int = 0, answers: Mapping[int, Answer] | None = None) -> None:
        self.floor = floor
        self.answers: dict[int, Answer] = dict(answers or {})

    def record(self, serial: int, answer: Answer, low: int) -> None:
        self.answers[serial] = answer
        self.raise_floor(low)
        while len(self.answers) > MAX_ANSWERS:
            oldest = next(iter(self.answers))
            del self.answers[oldest]
            self.floor = max(self.floor, oldest + 1)

    def raise_floor(self, floor: int) -> None:
        if floor > self.floor:
            self.floor = floor
            for serial in [serial for serial in self.answers if serial < floor]:
                del self.answers[serial]


class Sessions:
    """All boots' sessions, the least recently heard of first; and boots that are over."""

    def __init__(self) -> None:
        self._sessions: dict[int, Session] = {}
        self._ended: dict[int, None] = {}

    def find(self, boot: int, serial: int) -> Answer | None:
        """The answer given before, or None for a new command.

        Raises ``StaleCommand`` when it cannot be known whether the command was applied before, or when
        its sender's process is known to be over: it must not be applied, and nobody waits for it.
        """
        if boot in self._ended:
            raise StaleCommand(f"command [{boot}, {serial}] comes from a process that is over")
        session = self._sessions.get(boot)
        if session is None:
            return None
        answer = session.answers.get(serial)
        if answer is None and serial < session.floor:
            raise StaleCommand(
                f"command [{boot}, {serial}] is older than the answers kept (from {session.floor})"
            )
        return answer

    def record(self, boot: int, serial: int, answer: Answer, low: int = 0) -> None:
        if boot in self._ended:
            return
        session = self._sessions.pop(boot, None) or Session()
        self._sessions[boot] = session
        session.record(serial, answer, low)
        while len(self._sessions) > MAX_SESSIONS:
            del self._sessions[next(iter(self._sessions))]

    def end(self, boot: int) -> None:
        """The process that drew ``boot`` is over: forget its answers, apply nothing late from it."""
        self._sessions.pop(boot, None)
        self._ended[boot] = None
        while len(self._ended) > MAX_ENDED:
            del self._ended[next(iter(self._ended))]

    def to_json(self) -> dict[str, object]:
        return {
            "open": [
                [
                    boot,
                    session.floor,
                    [[serial, *answer] for serial, answer in session.answers.items()],
                ]
                for boot, session in self._sessions.items()
            ],
            "ended": list(self._ended),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Sessions:
        sessions = cls()
        for boot, floor, answers in value["open"]:
            given = {serial: (error, answer) for serial, error, answer in answers}
            sessions._sessions[boot] = Session(floor, given)
        sessions._ended = dict.fromkeys(value["ended"])
        return sessions


class StaleCommand(Exception):
    """A command that came too late to be applied."""
