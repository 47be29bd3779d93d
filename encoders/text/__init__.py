"""Texts → embeddings, one vector a token."""
