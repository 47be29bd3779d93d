"""Video encoders by name."""

from __future__ import annotations

from encoders.dct import DctEncoder
from encoders.video import VideoEncoder
from infra.errors import UsageError


def load_encoder(spec: str) -> VideoEncoder:
    """The encoder that `spec` names. Raises UsageError where there is none of that name."""
    if spec == "dct":
        return DctEncoder()
    raise UsageError(f"no video encoder {spec!r}: there is `dct` (embedded, without weights)")
