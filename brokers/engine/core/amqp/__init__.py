"""AMQP 0-9-1: frames, methods, connection and channel state machines."""
