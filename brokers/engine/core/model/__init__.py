"""What a broker is made of: vhosts, exchanges, bindings, queues, and how they are replicated."""
