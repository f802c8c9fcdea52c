from __future__ import annotations

import pytest

from brokers.engine.core.raft.peers import Beliefs
from brokers.engine.core.raft.types import Membership, decode_membership


def test_membership_survives_encoding() -> None:
    membership = Membership.of([3, 1, 2], [65535])
    assert Membership.decode(membership.encode()) == membership == Membership((1, 2, 3), (65535,))
    assert decode_membership(membership.encode(base_term=7)) == (membership, 7)


@pytest.mark.parametrize("data", [b"", b"\x01\x00", b"\x09" + bytes(4), Membership((1, 2)).encode()[:-1]])
def test_malformed_memberships_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="membership"):
        Membership.decode(data)


def test_nobody_is_voter_and_learner() -> None:
    with pytest.raises(ValueError, match="node 2"):
        Membership.of([1, 2], [2])


def test_digest_depends_on_the_set_alone() -> None:
    one, other = Beliefs(), Beliefs()
    for group in range(100):
        one.add(group, group % 3)
    for group in reversed(range(100)):
        other.add(group, 9)
        other.add(group, group % 3)
    assert one.digest == other.digest != 0
    other.add(5, 6)
    assert one.digest != other.digest
    for group in range(100):
        one.discard(group)
    assert one.digest == 0
