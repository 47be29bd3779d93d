"""Clips × captions × encoder → shards and samples."""
