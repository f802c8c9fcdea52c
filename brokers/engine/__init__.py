"""The broker: importable and runnable without Django.

``core`` holds pure state machines, ``storage`` the log on disk, ``node`` the process.
"""

__version__ = "0.1.0"
