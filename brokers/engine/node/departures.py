"""What a client's leaving sets off and takes a moment: its exclusive queues go, and auto-delete queues that it
was the last to consume from. It hears that it is done when that is over, so that names are free again by then.
"""

from __future__ import annotations

from collections.abc import Callable

from brokers.engine.core.amqp.connection import Connection


class Departures:
    """Counts, by connection, what is under way."""

    def __init__(self) -> None:
        self._under_way: dict[Connection, int] = {}
        self._waiting: dict[Connection, list[Callable[[], None]]] = {}

    def begin(self, connection: Connection) -> Callable[[], None]:
        """Something has begun; call what is returned, once, when it is over."""
        self._under_way[connection] = self._under_way.get(connection, 0) + 1

        def over() -> None:
            left = self._under_way[connection] = self._under_way[connection] - 1
            if not left:
                del self._under_way[connection]
                for done in self._waiting.pop(connection, ()):
                    done()

        return over

    def wait(self, connection: Connection, done: Callable[[], None]) -> None:
        """Have ``done`` called when nothing is under way, perhaps at once."""
        if connection in self._under_way:
            self._waiting.setdefault(connection, []).append(done)
        else:
            done()
