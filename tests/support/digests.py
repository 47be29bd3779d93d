"""The digest of an object's content, by its definition."""

from __future__ import annotations

import hashlib

from telecine.infra.store.reader import BLOCK_BYTES


def reference_digest(data: bytes) -> str:
    blocks = (data[i : i + BLOCK_BYTES] for i in range(0, len(data), BLOCK_BYTES))
    return hashlib.sha256(b"".join(hashlib.sha256(b).digest() for b in blocks)).hexdigest()
