"""Servers of chat completions."""
