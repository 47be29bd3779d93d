"""Tracks of a container: which one is the footage, and what it says of itself."""
