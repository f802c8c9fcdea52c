"""What is to be kept running, and the tie that ends it with its supervisor."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

PROJECT_ROOT: Final = Path(__file__).resolve().parents[2]

_PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True, slots=True)
class Program:
    """A program, by what it is called here, and how it is started and stopped.

    ``env`` is added to the supervisor's environment; a None takes a variable away. ``grace`` is how many
    seconds it has between SIGTERM and SIGKILL.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str | None] = field(default_factory=dict)
    cwd: Path = PROJECT_ROOT
    grace: float = 15.0

    def environment(self) -> dict[str, str]:
        """The whole environment of the program."""
        merged: dict[str, str | None] = {**os.environ, "PYTHONUNBUFFERED": "1", **self.env}
        return {key: value for key, value in merged.items() if value is not None}


def python(*args: str) -> tuple[str, ...]:
    """The command line of this very Python."""
    return (sys.executable, *args)


def end_with_parent() -> Callable[[], None]:
    """What a child runs between fork and exec to be sent SIGTERM should its parent die (prctl(2))."""
    parent = os.getpid()
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def before_exec() -> None:
        if prctl(_PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
        if os.getppid() != parent:
            # The parent died before the tie was made.
            os._exit(1)

    return before_exec
