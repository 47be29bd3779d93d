"""Stills and texts → embeddings, scores, duplicates."""
