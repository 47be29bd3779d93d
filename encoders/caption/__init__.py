"""Captioners: what was written or measured, models in process, servers."""
