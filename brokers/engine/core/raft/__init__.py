"""Consensus: the Raft protocol for many groups in one node."""
