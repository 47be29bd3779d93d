"""Which build it is: the id and the name of one generation of latents."""

from __future__ import annotations

import re
from dataclasses import dataclass

import duckdb

from telecine.encoders.load import load_captioner, load_scorer
from telecine.encoders.video.interface import VideoEncoder
from telecine.infra.errors import UsageError
from telecine.manifests.builds import State, builds, family
from telecine.manifests.dataset import Dataset
from telecine.manifests.fingerprint import JsonValue, canonical_json, fingerprint, short_id
from telecine.manifests.queries import connect
from telecine.manifests.shards import CURRENT
from telecine.manifests.specs import DatasetSpec
from telecine.pipeline.catalog.scores import scores_used

_NAME = re.compile("[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Generation:
    """One generation of latents: the name of everything that its bytes depend on.

    Which other renditions there are is none of it: they may come and go beside it.
    """

    build_id: str
    name: str  # folder under shards/
    encoder: VideoEncoder
    spec: str  # canonical JSON of a DatasetSpec, but for its scan, and scores it does not select by
    latents_fingerprint: str  # of all that latents depend on
    asked: DatasetSpec  # what it is made by
    family: str = ""  # as in schemas.Build

    @classmethod
    def of(
        cls,
        dataset: Dataset,
        encoder: VideoEncoder,
        name: str | None = None,
        default: str = "{encoder}-{id}",
    ) -> Generation:
        """The build that the dataset's spec asks for, or the first one of its renditions.

        A build that is there keeps its name; `default` is that of a new one. Raises UsageError
        where another is asked for, or one that another build has.
        """
        spec = dataset.spec.canonical()
        declared = {key: spec.pop(key) for key in ("renditions",) if key in spec}
        del spec["scan"]
        spec.pop("embed", None)  # a column lies beside it
        if scores := scores_used(dataset.spec):
            spec["score"] = scores.canonical()
        else:
            del spec["score"]
        if dataset.spec.shards.captions == "column":
            del spec["caption"], spec["caption_mix"]
        # Not where the weights lie, but what they are.
        vae: dict[str, JsonValue] = {
            "encoder": encoder.identity(),
            "patch": dataset.spec.vae.patch,
            "fps": dataset.spec.vae.fps,
        }
        if dataset.spec.vae.rate != "coded":
            vae["rate"] = dataset.spec.vae.rate
        if dataset.spec.vae.short_side is not None:
            vae |= {"short_side": dataset.spec.vae.short_side, "filter": dataset.spec.vae.filter}
        build_id = short_id("build", {**spec, "vae": vae, **_models(dataset.spec)})
        called = str(encoder.identity()["name"]).lower()
        encoder_name = re.sub("[^a-z0-9._-]+", "-", called)
        default = default.format(encoder=encoder_name, id=build_id[:8])
        name = _name(connect(dataset.tables), build_id, name, default)
        latents = fingerprint({"vae": vae, "pixels": spec["pixels"]})
        text = canonical_json({**spec, **declared})
        return cls(build_id, name, encoder, text, latents, dataset.spec)

    @property
    def rendition(self) -> str:
        """Its name among the renditions, or empty."""
        named = {build_id: name for name, build_id in family(self.family).items()}
        return named.get(self.build_id, "")

    @property
    def vae_fingerprint(self) -> str:
        return self.encoder.fingerprint


def _models(spec: DatasetSpec) -> dict[str, JsonValue]:
    """What captions and scores come from, in place of the spec's words for it."""
    mix, second = spec.caption_mix, spec.caption_mix.second
    models: dict[str, JsonValue] = {}
    if spec.shards.captions == "shard":
        models["caption"] = load_captioner(spec.caption).fingerprint
        models["caption_mix"] = {
            "second": load_captioner(second).fingerprint if second else None,
            "second_share": mix.second_share,
            "none_share": mix.none_share,
        }
    if scores := scores_used(spec):
        named = scores.canonical() | {"scorer": load_scorer(scores).fingerprint}
        models["score"] = {k: v for k, v in named.items() if k not in ("weights", "aesthetic")}
    return models


def _name(con: duckdb.DuckDBPyConnection, build_id: str, asked: str | None, default: str) -> str:
    names = {b.build_id: b.name for b in builds(con) if b.state is not State.DELETED}
    own = names.pop(build_id, None)
    if own is not None and asked in (None, own):
        return own
    if own is not None:
        raise UsageError(
            f"the build that this spec asks for is there and is named {own!r}, not {asked!r}: "
            "leave --name out"
        )
    if asked is not None and (not _NAME.fullmatch(asked) or asked == CURRENT):
        raise UsageError(
            f"--name {asked!r}: a build's name is a folder under shards/; write up to 64 of "
            "a-z 0-9 . _ -, the first a letter or digit"
        )
    name = asked or default
    if name in names.values():
        raise UsageError(f"there is another build named {name!r}: give this one another --name")
    return name
