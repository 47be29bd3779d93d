"""Families of video autoencoders: how each goes through a clip."""
