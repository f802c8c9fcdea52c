"""Vhosts, exchanges, bindings, queues: their metadata and how methods change them."""
