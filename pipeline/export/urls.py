"""export_urls: lists of a build's shards for plain webdataset, of all and by bucket.

FOLDER/urls.txt   index.json                       every shard
FOLDER/360/16x9/2s/urls.txt   index.json           those of one bucket: a stream of its own
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from telecine.manifests.fingerprint import fingerprint
from telecine.manifests.shards import Shard, path_in_build
from telecine.pipeline.export.folder import write_json
from telecine.pipeline.export.formats import Content


def write_urls(part: Path, content: Content) -> tuple[str, ...]:
    """Returns what is to be known of them."""
    shards = content.shards
    buckets = defaultdict[str, list[Shard]](list)
    for shard in shards:
        buckets[shard.bucket].append(shard)
    for bucket, members in buckets.items():
        _write_list(part / bucket, members, content)
        write_json(part / bucket / "index.json", _bucket(members) | _index(content, members))
    _write_list(part, shards, content)
    listed = [
        {**_bucket(members), **_sums(members), "urls": f"{bucket}/urls.txt"}
        for bucket, members in buckets.items()
    ]
    write_json(part / "index.json", {"buckets": listed, **_index(content, shards)})
    if content.url("").startswith("s3://"):
        return (
            "plain webdataset opens no s3:// URL: have a command fetch them, as in "
            f"--prefix 'pipe:aws s3 cp {content.url('{}')} -'",
        )
    return ()


def _write_list(folder: Path, shards: list[Shard], content: Content) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(content.url(shard.path) + "\n" for shard in shards)
    (folder / "urls.txt").write_text(lines, encoding="utf-8", errors="surrogateescape")


def _bucket(shards: list[Shard]) -> dict[str, Any]:
    first = shards[0]
    return {
        "resolution": first.resolution,
        "aspect": first.aspect,
        "duration": first.duration,
    }


def _sums(shards: list[Shard]) -> dict[str, Any]:
    return {
        "num_shards": len(shards),
        "num_samples": sum(s.num_samples for s in shards),
        "size_bytes": sum(s.size_bytes for s in shards),
    }


def _index(content: Content, shards: list[Shard]) -> dict[str, Any]:
    """Of all shards the digest is that of the dataset's own index.json."""
    build = content.build
    return {
        "build_id": build.build_id,
        "build": build.name,
        "vae_fingerprint": build.last.vae_fingerprint,
        **_sums(shards),
        "digest": fingerprint([[path_in_build(s.path, build.name), s.sha256] for s in shards]),
        "shards": [
            {
                "url": content.url(s.path),
                "path": path_in_build(s.path, build.name),
                "num_samples": s.num_samples,
                "size_bytes": s.size_bytes,
                "sha256": s.sha256,
            }
            for s in shards
        ],
    }
