"""Blocks of raw messages, in which a cluster gives and takes the content of queues."""

from __future__ import annotations

from brokers.engine.core.model.blocks import Block, BlockReader

__all__ = ["Block", "BlockReader"]
