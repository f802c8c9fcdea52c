"""Backups of clusters: their format, how they are written, checked, put back, proven and thinned out.

``docs/backups.md`` says what is promised and lays the format out.
"""
