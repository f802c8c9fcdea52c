"""The log on disk: segments, checksums, group commit, recovery."""
