"""Proof that a diffusion transformer trains on what the feed gives of a build."""
