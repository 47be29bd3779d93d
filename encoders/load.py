"""Models by name: what `[vae] encoder` and `[caption] captioner` of telecine.toml may say."""

from __future__ import annotations

from collections.abc import Callable

from encoders.captioner import Captioner, FirstOf
from encoders.dct import DctEncoder
from encoders.sidecar import SidecarCaptioner
from encoders.signal import SignalCaptioner
from encoders.video import VideoEncoder
from infra.errors import UsageError
from manifests.specs import VaeSpec

_CAPTIONERS: dict[str, Callable[[], Captioner]] = {
    "auto": lambda: FirstOf("auto", [SidecarCaptioner(), SignalCaptioner()]),
    "sidecar": SidecarCaptioner,
    "signal": SignalCaptioner,
}


def load_encoder(spec: VaeSpec, device: str = "cpu") -> VideoEncoder:
    """The encoder that `spec` names, on a torch device. Loads no weights before they are needed.

    Raises UsageError where there is none of that name, or the spec asks of it what it cannot do.
    """
    name, _, where = spec.encoder.partition(":")
    if name == "dct" and not where:
        _refuse_options(spec)
        return DctEncoder()
    if name == "diffusers" and where:
        from encoders.diffusers_vae import DiffusersEncoder

        return DiffusersEncoder(spec, device)
    raise UsageError(
        f"there is no video encoder {spec.encoder!r}: there is dct, embedded and without weights, "
        "and diffusers:FOLDER or diffusers:HUB_ID[@revision] for the library's video autoencoders"
    )


def _refuse_options(spec: VaeSpec) -> None:
    """The DCT has none of the options of learned encoders."""
    plain = VaeSpec(encoder=spec.encoder, patch=spec.patch, fps=spec.fps)
    given = [name for name, value in plain if getattr(spec, name) != value]
    if given:
        raise UsageError(
            f"[vae] {', '.join(given)}: only learned encoders have this, not {spec.encoder}"
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
