"""The broker process: event loop, listeners, peer links, control API."""
