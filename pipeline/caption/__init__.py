"""Stills and facts → captions."""
