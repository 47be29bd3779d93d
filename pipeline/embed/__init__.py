"""Texts in force → embeddings, and the column of them beside a build."""
