"""How a node that serves clients and a queue's leader work together, on one node or two."""
