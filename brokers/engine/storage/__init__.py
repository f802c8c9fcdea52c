"""The log on disk: segments, checksums, group commit, recovery.

- ``log``: what the node uses. ``settings``, ``errors``.
- ``format``: records and segments, byte by byte. ``table``, ``sidecar``: what lies where in a segment.
- ``catalog``, ``groups``, ``segment``: the state in memory, ranges only. ``reading``: from cache or disk.
- ``writer``, ``batch``: group commit. ``files``, ``disk``: creating and syncing, system calls.
- ``recovery``, ``scan``, ``losses``: from files back to groups; torn tail or damage.
- ``reclaim``, ``compact``: space comes back. ``powercut``: a test mode.
"""
