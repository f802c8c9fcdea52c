"""What can be wrong with a backup."""

from __future__ import annotations

from brokers.adapters.base import ClusterError


class BackupError(ClusterError):
    """A backup can't be written, read or trusted; the text says why, for the operator to read."""
