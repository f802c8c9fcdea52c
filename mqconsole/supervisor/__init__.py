"""Starts, watches and stops the processes of one machine: the nodes, with ``manage.py run`` the console, too.

Why this is not a library: docs/decisions/0010-supervision.md.
"""
