"""Pure state machines: no sockets, files, clocks, threads or randomness of their own."""
