"""Which samples come when, and in which pack: pure, from indexes alone; no shard is read."""
