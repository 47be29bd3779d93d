"""Scorers: pictures and texts in one space."""
