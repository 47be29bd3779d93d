"""Models by name: what `[vae] encoder` and `[caption] captioner` of telecine.toml may say."""

from __future__ import annotations

from collections.abc import Callable

from encoders.captioner import Captioner, FirstOf
from encoders.dct import DctEncoder
from encoders.sidecar import SidecarCaptioner
from encoders.signal import SignalCaptioner
from encoders.video import VideoEncoder
from infra.errors import UsageError

_CAPTIONERS: dict[str, Callable[[], Captioner]] = {
    "auto": lambda: FirstOf("auto", [SidecarCaptioner(), SignalCaptioner()]),
    "sidecar": SidecarCaptioner,
    "signal": SignalCaptioner,
}


def load_encoder(spec: str) -> VideoEncoder:
    """The encoder that `spec` names. Raises UsageError where there is none of that name."""
    if spec == "dct":
        return DctEncoder()
    raise UsageError(
        f"there is no video encoder {spec!r}: there is dct, embedded and without weights "
        "([vae] encoder in telecine.toml)"
    )


def load_captioner(spec: str) -> Captioner:
    """The captioner that `spec` names. Raises UsageError where there is none of that name."""
    make = _CAPTIONERS.get(spec)
    if make is None:
        raise UsageError(
            f"there is no captioner {spec!r}; choose one of {', '.join(sorted(_CAPTIONERS))} "
            "([caption] captioner in telecine.toml)"
        )
    return make()
