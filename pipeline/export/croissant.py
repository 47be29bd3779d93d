"""export_croissant: a build as MLCommons' Croissant 1.0 describes datasets, in JSON-LD.

    distribution  shard, shard, ...     FileObject   URL, bytes, SHA-256
                  latents, facts, texts FileSet      *.latent.npy, *.json, *.txt in the shards
    recordSet     latent_files          clip_id, latent
                  caption_files         clip_id, caption
                  samples               clip_id (of latent_files), caption, width, ... of the facts

mlcroissant 1.1 reads the first two. It finds nothing wrong with the third, which the specification
knows, but reads no JSON inside an archive. What the format asks for and the tables do not know is
null, which JSON-LD reads as absent.
"""

from __future__ import annotations

from typing import Any

from telecine.manifests.shards import Shard
from telecine.pipeline.export.formats import Content

VERSION = "http://mlcommons.org/croissant/1.0"

# Croissant's terms, by the names that the specification recommends.
_TERMS = (
    "citeAs", "column", "examples", "extract", "field", "fileObject", "fileProperty", "fileSet",
    "format", "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path",
    "recordSet", "references", "regex", "repeated", "replace", "separator", "source", "subField",
    "transform",
)  # fmt: skip
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    **{term: f"cr:{term}" for term in _TERMS},
    "examples": {"@id": "cr:examples", "@type": "@json"},
}

# Of a sample's JSON: name, data type, path, what it is.
_FACTS = (
    ("caption", "sc:Text", "$.caption", "the caption in force"),
    ("captioner", "sc:Text", "$.captioner", "whose text it is"),
    ("kind", "sc:Text", "$.kind", "video or image"),
    ("width", "sc:Integer", "$.width", "px, as encoded"),
    ("height", "sc:Integer", "$.height", "px, as encoded"),
    ("num_frames", "sc:Integer", "$.num_frames", "frames encoded"),
    ("fps", "sc:Float", "$.fps", "encoded frames per second"),
    ("duration", "sc:Float", "$.duration", "num_frames / fps, seconds"),
    ("resolution", "sc:Integer", "$.bucket.resolution", "bucket: px of the short side"),
    ("aspect", "sc:Text", "$.bucket.aspect", "bucket: width x height"),
    ("duration_bucket", "sc:Text", "$.bucket.duration", "bucket: image, or seconds"),
    ("source_uri", "sc:Text", "$.source.uri", "the footage it is from"),
)

_MEMBERS = (
    ("latents", "application/octet-stream", "*.latent.npy", "float16 arrays [C, T, H, W]"),
    ("facts", "application/json", "*.json", "everything to condition on, and where it came from"),
    ("texts", "text/plain", "*.txt", "the caption in force"),
)


def croissant(name: str, description: str, content: Content) -> dict[str, Any]:
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": name,
        "description": description,
        "conformsTo": VERSION,
        "license": None,
        "url": None,
        "creator": None,
        "datePublished": None,
        "distribution": [
            *(_shard(shard, content) for shard in content.shards),
            *(_members(*each, content.shards) for each in _MEMBERS),
        ],
        "recordSet": [
            _files("latent_files", *_LATENT),
            _files("caption_files", *_CAPTION),
            _samples(),
        ],
    }


def _id(shard: Shard) -> str:
    """Its path within the build."""
    return "/".join(shard.path.split("/")[2:])


def _shard(shard: Shard, content: Content) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": _id(shard),
        "name": _id(shard),
        "description": f"{shard.num_samples} samples of bucket {shard.bucket}",
        "contentUrl": content.url(shard.path),
        "contentSize": f"{shard.size_bytes} B",
        "encodingFormat": "application/x-tar",
        "sha256": shard.sha256,
    }


def _members(
    name: str, encoding: str, includes: str, text: str, shards: list[Shard]
) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": name,
        "name": name,
        "description": text,
        "containedIn": [{"@id": _id(shard)} for shard in shards],
        "encodingFormat": encoding,
        "includes": includes,
    }


# Of each clip: file set, end of the file's name, field, what it is.
_LATENT = ("latents", r"\.latent\.npy", "latent", "the bytes of a .npy file: float16 [C, T, H, W]")
_CAPTION = ("texts", r"\.txt", "caption", "the caption in force, UTF-8")


def _files(name: str, file_set: str, suffix: str, content: str, text: str) -> dict[str, Any]:
    """What the files of one kind hold, by clip."""
    file = {"fileSet": {"@id": file_set}}
    key = _field(
        name, "clip_id", "sc:Text", "the clip",
        {**file, "extract": {"fileProperty": "filename"},
         "transform": {"regex": f"^([^.]+){suffix}$"}},
    )  # fmt: skip
    value = _field(name, content, "sc:Text", text, {**file, "extract": {"fileProperty": "content"}})
    return _records(name, f"The {content} of each clip.", [key, value])


def _samples() -> dict[str, Any]:
    """The facts of each clip, with its latents."""
    facts = {"fileSet": {"@id": "facts"}}
    key = _field(
        "samples", "clip_id", "sc:Text", "the clip", {**facts, "extract": {"jsonPath": "$.clip_id"}}
    )
    key["references"] = {"field": {"@id": "latent_files/clip_id"}}
    rest = [
        _field("samples", name, kind, text, {**facts, "extract": {"jsonPath": path}})
        for name, kind, path, text in _FACTS
    ]
    latent = _field(
        "samples", "latent", "sc:Text", _LATENT[-1], {"field": {"@id": "latent_files/latent"}}
    )
    return _records("samples", "One record per clip.", [key, *rest, latent])


def _records(name: str, text: str, fields: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": text,
        "key": {"@id": f"{name}/clip_id"},
        "field": fields,
    }


def _field(
    record_set: str, name: str, kind: str, text: str, source: dict[str, Any]
) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"{record_set}/{name}",
        "name": name,
        "description": text,
        "dataType": kind,
        "source": source,
    }
