"""Shards → packs for a trainer: stands on manifests, loads no ray, av, duckdb or deltalake."""
