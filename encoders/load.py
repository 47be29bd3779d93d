"""Models by name: what `[vae] encoder` and `[caption] captioner` of telecine.toml may say."""

from __future__ import annotations

from collections.abc import Callable

from telecine.encoders.caption.interface import Captioner, FirstOf
from telecine.encoders.caption.sidecar import SidecarCaptioner
from telecine.encoders.caption.signal import SignalCaptioner
from telecine.encoders.hub import digest_of_file
from telecine.encoders.runtime import DEFAULT_RUNTIME, ModelRuntime
from telecine.encoders.score.heads import head_file, load_head
from telecine.encoders.score.interface import Scorer
from telecine.encoders.video.dct import DctEncoder
from telecine.encoders.video.interface import VideoEncoder
from telecine.infra.errors import UsageError
from telecine.manifests.specs import CaptionSpec, ScoreSpec, VaeSpec

_CAPTIONERS: dict[str, Callable[[], Captioner]] = {
    "auto": lambda: FirstOf("auto", [SidecarCaptioner(), SignalCaptioner()]),
    "sidecar": SidecarCaptioner,
    "signal": SignalCaptioner,
}
LEARNED_CAPTIONERS = ("openclip", "vlm", "openai")


def load_encoder(spec: VaeSpec, device: str = "cpu") -> VideoEncoder:
    """The encoder that `spec` names, on a torch device. Loads no weights before they are needed.

    Raises UsageError where there is none of that name, or the spec asks of it what it cannot do.
    """
    name, _, where = spec.encoder.partition(":")
    if name == "dct" and not where:
        _refuse_options(spec)
        return DctEncoder()
    if name == "diffusers" and where:
        from telecine.encoders.video.diffusers import DiffusersEncoder

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


def load_captioner(spec: CaptionSpec, runtime: ModelRuntime = DEFAULT_RUNTIME) -> Captioner:
    """The captioner that `spec` names. Loads no weights before they are needed.

    Raises UsageError where there is none of that name, or the spec asks of it what it cannot do.
    """
    name, _, which = spec.captioner.partition(":")
    if name in _CAPTIONERS and not which:
        _refuse_caption_options(spec)
        return _CAPTIONERS[name]()
    if name in LEARNED_CAPTIONERS and which:
        return _load_model(name, which, spec, runtime)
    raise UsageError(
        f"there is no captioner {spec.captioner!r}; choose one of "
        f"{', '.join(sorted(_CAPTIONERS))}, openclip:MODEL[@TAG_OR_FILE], vlm:FOLDER_OR_HUB_ID or "
        "openai:MODEL ([caption] captioner in telecine.toml)"
    )


def _load_model(name: str, which: str, spec: CaptionSpec, runtime: ModelRuntime) -> Captioner:
    if name == "openclip":
        from telecine.encoders.caption.coca import load_coca

        return load_coca(spec, runtime)
    if name == "vlm":
        from telecine.encoders.caption.vlm.vlm import load_vlm

        return load_vlm(spec, runtime)
    from telecine.encoders.caption.chat.chat import load_chat

    return load_chat(spec, runtime)


def _refuse_caption_options(spec: CaptionSpec) -> None:
    """The embedded captioners have none of the options of models."""
    plain = CaptionSpec(captioner=spec.captioner)
    given = [key for key, value in plain if getattr(spec, key) != value]
    if given:
        raise UsageError(
            f"[caption] {', '.join(given)}: only captioners that are models have this, not "
            f"{spec.captioner}"
        )


def pin_captioner(spec: CaptionSpec) -> CaptionSpec:
    """The spec with the digest of the model's files as they are now, where it has files.

    Raises UsageError where they are not there.
    """
    name, _, _ = spec.captioner.partition(":")
    unpinned = spec.model_copy(update={"weights": None})
    if name == "openclip":
        from telecine.encoders.score.files import weights_of

        return unpinned.model_copy(update={"weights": weights_of(spec.captioner)})
    if name == "vlm":
        from telecine.encoders.caption.vlm.vlm import weights_of as vlm_weights_of

        return unpinned.model_copy(update={"weights": vlm_weights_of(spec.captioner)})
    return unpinned


def absolute_captioner(captioner: str) -> str:
    """`captioner` with a path in it made absolute, so that it holds in any working directory."""
    name, _, _ = captioner.partition(":")
    if name == "openclip":
        from telecine.encoders.score.files import absolute

        return absolute(captioner)
    if name == "vlm":
        from telecine.encoders.hub import absolute_folder

        return absolute_folder(name, captioner)
    return captioner


def load_scorer(spec: ScoreSpec, runtime: ModelRuntime = DEFAULT_RUNTIME) -> Scorer:
    """The scorer that `spec` names. Loads no weights before they are needed.

    Raises UsageError where there is none of that name.
    """
    name, _, which = (spec.scorer or "").partition(":")
    if name != "openclip" or not which:
        raise UsageError(
            f"there is no scorer {spec.scorer!r}: there is openclip:MODEL[@TAG_OR_FILE], "
            "openclip:FOLDER and openclip:hf-hub:ORG/NAME ([score] scorer in telecine.toml)"
        )
    from telecine.encoders.score.openclip import OpenClip

    return OpenClip(
        f"{name}:{which}",
        spec.dtype,
        weights=spec.weights,
        device=runtime.device,
        batch=runtime.batch,
    )


def pin_scorer(spec: ScoreSpec) -> ScoreSpec:
    """The spec with the digests of the model's and the head's files as they are now.

    Raises UsageError where they are not there, or do not go together.
    """
    from telecine.encoders.score.openclip import weights_of

    scorer = load_scorer(spec)
    weights = weights_of(str(spec.scorer))
    head = None
    if spec.aesthetic is not None:
        load_head(spec.aesthetic, scorer.dimensions)
        head = digest_of_file(head_file(spec.aesthetic))
    return spec.model_copy(update={"weights": weights, "aesthetic_weights": head})
