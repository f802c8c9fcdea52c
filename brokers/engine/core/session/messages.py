"""What a node with clients (the *link* side) and a queue's leader say to each other.

Between two nodes they travel in order over the peer link; on one node they are handed over as they are.
After a change of leader the new one says ``Hello``; each link then says again what is still open
(settlements, consumers with what they hold, batches), from ``Resuming`` to ``Resumed``. What it said before
``Resuming`` was for the former leader, and counts no more.
"""

from __future__ import annotations

from typing import NamedTuple

from brokers.engine.core.model.entries import Run


class Publish(NamedTuple):
    """Link to leader: a batch of messages (``entries.encode_batch``)."""

    group: int
    batch: bytes


class Published(NamedTuple):
    """Leader to link: the receiver's batches up to ``serial`` are committed and applied."""

    group: int
    serial: int


class Refused(NamedTuple):
    """Leader to link: of the receiver's batch ``serial`` only the first ``taken`` messages were taken.

    Comes before the ``Published`` that covers the batch.
    """

    group: int
    serial: int
    taken: int


class Settle(NamedTuple):
    """Link to leader: ``consumer`` settled positions. ``number`` counts a link's settlements from 1."""

    group: int
    number: int
    consumer: int
    outcome: int
    runs: list[Run]


class SettledTo(NamedTuple):
    """Leader to link: the receiver's settlements up to ``number`` are committed."""

    group: int
    number: int


class Attach(NamedTuple):
    """Link to leader: a consumer joins. ``outstanding``: what it holds from an earlier leader.

    ``windowed``: it has no prefetch limit; credit comes back by ``Credit`` as its socket drains, not by
    settling. ``resumed``: it was attached before the change of leader, so it is not refused now.
    ``holder``: it gets nothing more and only holds ``outstanding`` (a basic.get, a cancelled consumer).
    ``order``: what its first leader said in ``Attached``, 0 before.
    """

    group: int
    consumer: int
    credit: int
    no_ack: bool
    exclusive: bool
    windowed: bool
    resumed: bool
    holder: bool
    priority: int
    order: int
    outstanding: list[Run]


class Attached(NamedTuple):
    """Leader to link: the consumer is in; or not, when ``in_use`` (the queue is in exclusive use).

    ``order`` rises with every consumer that joins the queue, under whatever leader.
    """

    group: int
    consumer: int
    in_use: bool
    order: int


class Follow(NamedTuple):
    """Link to leader: a consumer reads the queue like a stream, see ``stream.Start`` for ``mode``.

    For ``credit`` and ``windowed`` see ``Attach``; its settlements are said as ``Credit``.
    """

    group: int
    consumer: int
    credit: int
    windowed: bool
    mode: int
    value: int


class Following(NamedTuple):
    """Leader to link: the reader is in and begins at ``position``."""

    group: int
    consumer: int
    position: int


class Detach(NamedTuple):
    """Link to leader: send this consumer nothing more; with ``release``, it gives back what it holds."""

    group: int
    consumer: int
    release: bool


class Credit(NamedTuple):
    """Link to leader: the consumer's socket took ``amount`` more messages, of ``size`` bytes in all."""

    group: int
    consumer: int
    amount: int
    size: int


class Limit(NamedTuple):
    """Link to leader: the consumer may hold ``prefetch`` messages from now on; or, when ``windowed`` (see
    ``Attach``), have as many on their way."""

    group: int
    consumer: int
    prefetch: int
    windowed: bool


class Get(NamedTuple):
    """Link to leader: basic.get for a one-off consumer."""

    group: int
    consumer: int
    no_ack: bool


Piece = tuple[int, bool, list[int], bytes]
"""Messages at consecutive positions: (first position, redelivered, ends, bytes), see ``entries.Messages``."""


class Got(NamedTuple):
    """Leader to link: the answer to ``Get``; no piece when the queue had nothing ready."""

    group: int
    consumer: int
    ready: int
    pieces: list[Piece]


class Deliver(NamedTuple):
    """Leader to link: messages for a consumer."""

    group: int
    consumer: int
    pieces: list[Piece]


class Ask(NamedTuple):
    """Link to leader: how many messages and consumers? With ``purge``, the ready ones go first."""

    group: int
    request: int
    purge: bool


class Answer(NamedTuple):
    """Leader to link: the answer to ``Ask``; ``ready`` is how many were purged when that was asked."""

    group: int
    request: int
    ready: int
    consumers: int


class Hello(NamedTuple):
    """Leader to every node: I lead this queue in ``term``; say what is open, from ``Resuming`` to ``Resumed``.

    ``number`` is another for every hello of a term.
    """

    group: int
    term: int
    number: int


class Resuming(NamedTuple):
    """Link to leader: here begins the answer to the hello ``number``."""

    group: int
    number: int


class Resumed(NamedTuple):
    """Link to leader: that was all."""

    group: int
    term: int


Message = (
    Publish
    | Published
    | Refused
    | Settle
    | SettledTo
    | Attach
    | Attached
    | Follow
    | Following
    | Detach
    | Credit
    | Limit
    | Get
    | Got
    | Deliver
    | Ask
    | Answer
    | Hello
    | Resuming
    | Resumed
)
