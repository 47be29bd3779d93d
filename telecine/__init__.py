"""Telecine: raw footage in, bucketed latent shards out."""
