"""Models by name: what [vae] encoder, [caption] captioner, [score] scorer, [embed] encoder may say.

ENCODERS, CAPTIONERS, SCORERS, TEXT_ENCODERS: a row for each that is built in. A plug-in's is one
row more, and is imported when a spec names it, in each process that uses it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from typing import TypeVar

import telecine.infra.plugins as plugins
from telecine.encoders.caption.interface import Captioner, FirstOf
from telecine.encoders.caption.sidecar import SidecarCaptioner
from telecine.encoders.caption.signal import SignalCaptioner
from telecine.encoders.hub import absolute_folder, digest_of_file
from telecine.encoders.kinds import CaptionerKind, EncoderKind, Kind, RunsOn, ScorerKind, TextKind
from telecine.encoders.plugin import PluginCaptioner, PluginEncoder, PluginScorer, PluginTextEncoder
from telecine.encoders.runtime import DEFAULT_RUNTIME, ModelRuntime
from telecine.encoders.score.heads import head_file, load_head
from telecine.encoders.score.interface import Scorer
from telecine.encoders.text.interface import NoTextEncoder, TextEncoder
from telecine.encoders.video.dct import DctEncoder
from telecine.encoders.video.interface import VideoEncoder
from telecine.infra.errors import UsageError
from telecine.infra.plugins import Plugin
from telecine.manifests.specs import (
    ABOUT_CLIPS,
    CaptionSpec,
    EmbedSpec,
    ScoreSpec,
    Spec,
    VaeSpec,
)

K = TypeVar("K", bound=Kind)

# Keys of the specs that are a model's own; the rest are for whatever model there is.
VAE_OPTIONS = frozenset(VaeSpec.model_fields) - {"encoder", *ABOUT_CLIPS}
CAPTION_OPTIONS = frozenset(CaptionSpec.model_fields) - {"captioner"}
SCORE_OPTIONS = frozenset({"dtype"})
EMBED_OPTIONS = frozenset({"dtype", "max_tokens"})


# ── what is built in: libraries are imported when a model is made ────────────────────────────────


def _diffusers(spec: VaeSpec, device: str) -> VideoEncoder:
    from telecine.encoders.video.diffusers import DiffusersEncoder

    return DiffusersEncoder(spec, device)


def _coca(spec: CaptionSpec, runtime: ModelRuntime) -> Captioner:
    from telecine.encoders.caption.coca import load_coca

    return load_coca(spec, runtime)


def _vlm(spec: CaptionSpec, runtime: ModelRuntime) -> Captioner:
    from telecine.encoders.caption.vlm.vlm import load_vlm

    return load_vlm(spec, runtime)


def _chat(spec: CaptionSpec, runtime: ModelRuntime) -> Captioner:
    from telecine.encoders.caption.chat.chat import load_chat

    return load_chat(spec, runtime)


def _openclip(spec: ScoreSpec, runtime: ModelRuntime) -> Scorer:
    from telecine.encoders.score.openclip import OpenClip

    return OpenClip(
        str(spec.scorer),
        spec.dtype,
        weights=spec.weights,
        device=runtime.device,
        batch=runtime.batch,
    )


def _openclip_weights(named: str) -> str:
    from telecine.encoders.score.files import weights_of

    return weights_of(named)


def _openclip_absolute(named: str) -> str:
    from telecine.encoders.score.files import absolute

    return absolute(named)


def _vlm_weights(named: str) -> str:
    from telecine.encoders.caption.vlm.vlm import weights_of

    return weights_of(named)


def _text_encoder(spec: EmbedSpec, runtime: ModelRuntime) -> TextEncoder:
    from telecine.encoders.text.models import TransformersTextEncoder

    return TransformersTextEncoder(spec, runtime)


def _text_weights(named: str) -> str:
    from telecine.encoders.text.files import weights_of

    return weights_of(named)


ENCODERS: Mapping[str, EncoderKind] = {
    "dct": EncoderKind(make=lambda spec, device: DctEncoder(), runs_on=RunsOn.CPU),
    "diffusers": EncoderKind(
        rests=("FOLDER", "HUB_ID[@revision]"),
        make=_diffusers,
        options=VAE_OPTIONS,
        absolute=partial(absolute_folder, "diffusers"),
    ),
}

CAPTIONERS: Mapping[str, CaptionerKind] = {
    "auto": CaptionerKind(
        make=lambda spec, runtime: FirstOf("auto", [SidecarCaptioner(), SignalCaptioner()]),
        runs_on=RunsOn.CPU,
    ),
    "sidecar": CaptionerKind(make=lambda spec, runtime: SidecarCaptioner(), runs_on=RunsOn.CPU),
    "signal": CaptionerKind(make=lambda spec, runtime: SignalCaptioner(), runs_on=RunsOn.CPU),
    "openclip": CaptionerKind(
        rests=("MODEL[@TAG_OR_FILE]",),
        make=_coca,
        options=CAPTION_OPTIONS,
        absolute=_openclip_absolute,
        weights_of=_openclip_weights,
    ),
    "vlm": CaptionerKind(
        rests=("FOLDER_OR_HUB_ID",),
        make=_vlm,
        options=CAPTION_OPTIONS,
        absolute=partial(absolute_folder, "vlm"),
        weights_of=_vlm_weights,
    ),
    "openai": CaptionerKind(
        rests=("MODEL",), make=_chat, options=CAPTION_OPTIONS, runs_on=RunsOn.SERVER
    ),
}

SCORERS: Mapping[str, ScorerKind] = {
    "openclip": ScorerKind(
        rests=("MODEL[@TAG_OR_FILE]", "FOLDER", "hf-hub:ORG/NAME"),
        make=_openclip,
        options=SCORE_OPTIONS,
        absolute=_openclip_absolute,
        weights_of=_openclip_weights,
    ),
}

TEXT_ENCODERS: Mapping[str, TextKind] = {
    "none": TextKind(make=lambda spec, runtime: NoTextEncoder(), runs_on=RunsOn.CPU),
    **{
        name: TextKind(
            rests=("FOLDER_OR_HUB_ID",),
            make=_text_encoder,
            options=EMBED_OPTIONS,
            absolute=partial(absolute_folder, name),
            weights_of=_text_weights,
        )
        for name in ("t5", "umt5", "clip", "transformers")
    },
}


# ── by name ──────────────────────────────────────────────────────────────────────────────────────


def encoder_kind(named: str) -> EncoderKind:
    """Raises UsageError where nothing is called so, as do the next three."""
    return _named(plugins.ENCODERS, ENCODERS, EncoderKind, named)[0]


def captioner_kind(named: str) -> CaptionerKind:
    return _named(plugins.CAPTIONERS, CAPTIONERS, CaptionerKind, named)[0]


def scorer_kind(named: str) -> ScorerKind:
    return _named(plugins.SCORERS, SCORERS, ScorerKind, named)[0]


def text_kind(named: str) -> TextKind:
    return _named(plugins.TEXT_ENCODERS, TEXT_ENCODERS, TextKind, named)[0]


_SAID = {  # what it is, and where a spec says which
    plugins.ENCODERS: ("video encoder", "[vae] encoder"),
    plugins.CAPTIONERS: ("captioner", "[caption] captioner"),
    plugins.SCORERS: ("scorer", "[score] scorer"),
    plugins.TEXT_ENCODERS: ("text encoder", "[embed] encoder"),
}


def _named(
    group: str, built_in: Mapping[str, K], kind_of: type[K], named: str | None
) -> tuple[K, Plugin | None]:
    """What `named` stands for, and the plug-in that it is of, if any."""
    name, _, rest = (named or "").partition(":")
    plugin = plugins.find(group, name, built_in)
    kind = plugin.load(kind_of) if plugin else built_in.get(name)
    if kind is not None and bool(rest) == bool(kind.rests):
        return kind, plugin
    what, where = _SAID[group]
    if plugin is not None and kind is not None:
        forms = " or ".join(kind.forms(name))
        raise UsageError(f"there is no {what} {named!r}: the plug-in {plugin} has {forms}")
    own = [form for name, kind in built_in.items() for form in kind.forms(name)]
    raise UsageError(
        f"there is no {what} {named!r}; choose one of "
        f"{', '.join([*own, *plugins.listed(group)])} ({where} in telecine.toml; a plug-in that "
        "offers others has to be installed)"
    )


def _refuse_unheeded(spec: Spec, named: str, where: str, unheeded: Collection[str]) -> None:
    """Raises UsageError where a key is given that would change nothing."""
    plain = type(spec)()
    given = [
        key
        for key in type(spec).model_fields
        if key in unheeded and getattr(spec, key) != getattr(plain, key)
    ]
    if given:
        raise UsageError(f"[{where}] {', '.join(given)}: {named} has no such option; leave it out")


def load_encoder(spec: VaeSpec, device: str = "cpu") -> VideoEncoder:
    """The encoder that `spec` names, on a torch device. Loads no weights before they are needed.

    Raises UsageError where there is none of that name, or the spec asks of it what it cannot do.
    """
    kind, plugin = _named(plugins.ENCODERS, ENCODERS, EncoderKind, spec.encoder)
    _refuse_unheeded(spec, spec.encoder, "vae", VAE_OPTIONS - kind.options)
    made = kind.make(spec, device)
    return made if plugin is None else PluginEncoder(made, plugin)


def load_captioner(spec: CaptionSpec, runtime: ModelRuntime = DEFAULT_RUNTIME) -> Captioner:
    """The captioner that `spec` names. Loads no weights before they are needed.

    Raises UsageError where there is none of that name, or the spec asks of it what it cannot do.
    """
    kind, plugin = _named(plugins.CAPTIONERS, CAPTIONERS, CaptionerKind, spec.captioner)
    heeded = kind.options | ({"weights"} if kind.weights_of else set())
    _refuse_unheeded(spec, spec.captioner, "caption", CAPTION_OPTIONS - heeded)
    made = kind.make(spec, runtime)
    return made if plugin is None else PluginCaptioner(made, plugin)


def load_scorer(spec: ScoreSpec, runtime: ModelRuntime = DEFAULT_RUNTIME) -> Scorer:
    """The scorer that `spec` names. Loads no weights before they are needed.

    Raises UsageError where there is none of that name.
    """
    kind, plugin = _named(plugins.SCORERS, SCORERS, ScorerKind, spec.scorer)
    _refuse_unheeded(spec, str(spec.scorer), "score", SCORE_OPTIONS - kind.options)
    made = kind.make(spec, runtime)
    return made if plugin is None else PluginScorer(made, plugin)


def load_text_encoder(spec: EmbedSpec, runtime: ModelRuntime = DEFAULT_RUNTIME) -> TextEncoder:
    """The text encoder that `spec` names. Loads no weights before they are needed.

    Raises UsageError where there is none of that name.
    """
    kind, plugin = _named(plugins.TEXT_ENCODERS, TEXT_ENCODERS, TextKind, spec.encoder)
    _refuse_unheeded(spec, str(spec.encoder), "embed", EMBED_OPTIONS - kind.options)
    made = kind.make(spec, runtime)
    return made if plugin is None else PluginTextEncoder(made, plugin)


# ── files of models ──────────────────────────────────────────────────────────────────────────────


def pin_captioner(spec: CaptionSpec) -> CaptionSpec:
    """The spec with the digest of the model's files as they are now, where it has files.

    Raises UsageError where they are not there.
    """
    weights_of = captioner_kind(spec.captioner).weights_of
    weights = weights_of(spec.captioner) if weights_of else None
    return spec.model_copy(update={"weights": weights})


def pin_scorer(spec: ScoreSpec) -> ScoreSpec:
    """The spec with the digests of the model's and the head's files as they are now.

    Raises UsageError where they are not there, or do not go together.
    """
    scorer, named = load_scorer(spec), str(spec.scorer)
    weights_of = scorer_kind(named).weights_of
    weights = weights_of(named) if weights_of else None
    head = None
    if spec.aesthetic is not None:
        load_head(spec.aesthetic, scorer.dimensions)
        head = digest_of_file(head_file(spec.aesthetic))
    return spec.model_copy(update={"weights": weights, "aesthetic_weights": head})


def pin_text_encoder(spec: EmbedSpec) -> EmbedSpec:
    """The spec with the digest of the model's files as they are now, where it has files.

    Raises UsageError where they are not there.
    """
    named = str(spec.encoder)
    weights_of = text_kind(named).weights_of
    return spec.model_copy(update={"weights": weights_of(named) if weights_of else None})


def absolute_encoder(named: str) -> str:
    """`named` with a path in it made absolute, so that it holds in any working directory.

    Raises UsageError where nothing is called so, as do the next three.
    """
    return encoder_kind(named).absolute(named)


def absolute_captioner(named: str) -> str:
    return captioner_kind(named).absolute(named)


def absolute_scorer(named: str) -> str:
    return scorer_kind(named).absolute(named)


def absolute_text_encoder(named: str) -> str:
    return text_kind(named).absolute(named)
