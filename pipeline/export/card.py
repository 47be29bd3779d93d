"""export_card: a dataset card for who publishes a build, and what its readers must know.

    README.md        a Hugging Face dataset card: what is in it, what was left out, how to load it
    croissant.json   the same for programs (pipeline/export/croissant.py)

Every number comes from the tables. What they do not know (licence, creator, date) is left to be
filled in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb

from telecine.encoders.load import load_captioner
from telecine.infra.text import counted, length, size
from telecine.manifests.builds import BuildState
from telecine.manifests.dataset import Dataset
from telecine.manifests.schemas import MEASURED_NUMBERS, Clip, arrow_schema
from telecine.manifests.shards import Shard
from telecine.manifests.specs import DatasetSpec
from telecine.pipeline.catalog.captions import create_chosen_captions
from telecine.pipeline.export.croissant import croissant
from telecine.pipeline.export.folder import write_json
from telecine.pipeline.export.formats import Content, not_a_place
from telecine.pipeline.look.summary import BuildReport, Summary, summary

SIZES = (
    (10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"), (10**8, "10M<n<100M"), (10**9, "100M<n<1B"),
    (10**10, "1B<n<10B"), (10**11, "10B<n<100B"), (10**12, "100B<n<1T"),
)  # fmt: skip

_KEPT = """
CREATE TEMP TABLE kept AS
SELECT clip_id, captions_digest, text_digest, encoded_width, encoded_height, encoded_frames,
    fps_num / fps_den AS fps
FROM live_samples WHERE build_id = ? AND outcome = 'kept'
"""


def write_card(part: Path, content: Content) -> tuple[str, ...]:
    """Returns what is left to be filled in."""
    _check_prefix(content.options.prefix)
    dataset, con, build, shards = content.dataset, content.con, content.build, content.shards
    found = summary(con, dataset.tables.uri, dataset.spec)
    (report,) = [b for b in found.builds if b.build_id == build.build_id]
    spec = DatasetSpec.model_validate(json.loads(build.last.spec))
    con.execute(_KEPT, [build.build_id])
    title = name_of(dataset, build)
    sections = [
        _front_matter(title, report),
        f"# {title}",
        _lead(report, shards),
        _contents(con),
        _buckets(report, shards),
        _measurements(con),
        _captions(con, spec),
        _latents(build, spec),
        _pixels(build, spec),
        _left_out(found, report, spec),
        _HOW_TO_LOAD,
    ]
    (part / "README.md").write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    write_json(part / "croissant.json", croissant(title, _lead(report, shards), content))
    notes = ["fill in: license in README.md; license, creator, datePublished and url in "
             "croissant.json"]  # fmt: skip
    if content.url("").startswith("/"):
        notes.append("croissant.json has paths of this machine: --prefix names where they will lie")
    return tuple(notes)


def _check_prefix(prefix: str | None) -> None:
    """Readers open its URLs themselves: none of them runs a command."""
    if prefix is not None and ("{}" in prefix or "pipe:" in prefix):
        raise not_a_place(prefix)


def name_of(dataset: Dataset, build: BuildState) -> str:
    """Of letters, digits, dots, dashes and underscores."""
    last = dataset.uri.rstrip("/").rpartition("/")[2] or "dataset"
    return re.sub("[^A-Za-z0-9._-]+", "-", f"{last}-{build.name}").strip("-")


def _front_matter(title: str, report: BuildReport) -> str:
    kinds = {"image" if b.duration == "image" else "video" for b in report.buckets}
    samples = sum(b.clips for b in report.buckets)
    category = next((name for below, name in SIZES if samples < below), "n>1T")
    tags = [*sorted(kinds, reverse=True), "latents", "webdataset", "telecine"]
    return "\n".join(
        [
            "---",
            "license:  # to be filled in: an id of https://huggingface.co/docs/hub/repo-licenses",
            f"pretty_name: {json.dumps(title)}",
            "tags:",
            *(f"- {tag}" for tag in tags),
            "size_categories:",
            f"- {category}",
            "---",
        ]
    )


def _lead(report: BuildReport, shards: list[Shard]) -> str:
    samples, hours = sum(b.clips for b in report.buckets), sum(b.hours for b in report.buckets)
    images = sum(b.clips for b in report.buckets if b.duration == "image")
    return (
        f"{counted(samples - images, 'clip')} of video ({length(3600 * hours)}) and "
        f"{counted(images, 'still image')}, as latents of `{json.loads(report.vae)['name']}`, in "
        f"{counted(len(shards), 'WebDataset shard')}, "
        f"{size(sum(s.size_bytes for s in shards))} in all."
    )


# ── sections ─────────────────────────────────────────────────────────────────────────────────────


def _contents(con: duckdb.DuckDBPyConnection) -> str:
    rows = con.sql("""
        SELECT kind, count(*), sum(encoded_frames)::BIGINT, min(encoded_width), max(encoded_width),
            min(encoded_height), max(encoded_height), if(kind = 'video', min(fps), NULL),
            if(kind = 'video', max(fps), NULL)
        FROM kept JOIN clips USING (clip_id) GROUP BY kind ORDER BY kind DESC
    """).fetchall()
    head = ("kind", "samples", "frames", "least width", "greatest", "least height", "greatest",
            "least fps", "greatest")  # fmt: skip
    return (
        "## What it holds\n\n"
        "Each sample is a clip: three members of a tar, `<clip_id>.latent.npy` (float16 "
        "`[C, T, H, W]`), `<clip_id>.json` (everything to condition on, and where it came from) "
        "and `<clip_id>.txt` (the caption). All samples of a shard share a bucket, "
        "whose shapes are like, not equal: stack those of equal `latent.shape` in their JSON, or "
        "pack.\n\n" + table(head, rows)
    )


def _buckets(report: BuildReport, shards: list[Shard]) -> str:
    of_shards: dict[str, int] = {}
    for shard in shards:
        of_shards[shard.bucket] = of_shards.get(shard.bucket, 0) + shard.size_bytes
    rows = [
        (b.resolution, b.aspect, b.duration, b.clips, length(3600 * b.hours), size(b.latent_bytes),
         b.shards, size(of_shards[f"{b.resolution}/{b.aspect}/{b.duration}"]))
        for b in report.buckets
    ]  # fmt: skip
    head = ("resolution", "aspect", "duration", "clips", "footage", "latents", "shards", "bytes")
    return (
        "## Buckets\n\nA bucket is the rung of the short side in pixels, the aspect, and the rung "
        "of the length.\n\n" + table(head, rows)
    )


def _measurements(con: duckdb.DuckDBPyConnection) -> str:
    listed = ", ".join(f"min({n}), avg({n}), max({n})" for n in MEASURED_NUMBERS)
    (found,) = con.sql(f"SELECT {listed} FROM clips SEMI JOIN kept USING (clip_id)").fetchall()
    schema = arrow_schema(Clip)
    rows = [
        (f"`{name}`", schema.field(name).metadata[b"text"].decode(),
         *("unknown" if value is None else f"{value:.4g}" for value in found[3 * n : 3 * n + 3]))
        for n, name in enumerate(MEASURED_NUMBERS)
    ]  # fmt: skip
    head = ("measurement", "unit", "lowest", "mean", "highest")
    return "## Measurements\n\nOver the clips of the build.\n\n" + table(head, rows)


def _captions(con: duckdb.DuckDBPyConnection, spec: DatasetSpec) -> str:
    """Whose text each sample has, by the digest of all that it says of captions."""
    create_chosen_captions(con, spec)
    rows = con.sql("""
        SELECT coalesce(captioner, 'no longer in force'), count(*),
            count(*) FILTER (text_digest = sha256('')), count(DISTINCT text_digest)
        FROM kept LEFT JOIN (SELECT clip_id, captions_digest, captioner FROM chosen_captions)
        USING (clip_id, captions_digest) GROUP BY ALL ORDER BY ALL
    """).fetchall()
    mix = spec.caption_mix
    said = [table(("captioner", "samples", "without a text", "different texts"), rows)]
    captioners = [load_captioner(spec.caption)]
    if mix.second is not None:
        captioners.append(load_captioner(mix.second))
        said.append(
            f"A share of {mix.second_share:g} of the clips take the second captioner's text, and "
            f"{mix.none_share:g} none, chosen by their ids."
        )
    elif mix.none_share:
        said.append(f"A share of {mix.none_share:g} of the clips, chosen by their ids, have none.")
    for captioner in captioners:
        said.append(f"`{captioner.name}`, fingerprint `{captioner.fingerprint}`:")
        said.append(code(captioner.identity()))
    return "## Captions\n\n" + "\n\n".join(said)


def _latents(build: BuildState, spec: DatasetSpec) -> str:
    vae = spec.vae
    facts = [
        ("encoder's fingerprint", f"`{build.last.vae_fingerprint}`"),
        ("latents' fingerprint", f"`{build.last.latents_fingerprint}`"),
        ("posterior", vae.posterior),
        ("normalised with the model's constants", "yes" if vae.normalise else "no"),
        ("spatial patch that the crop allows for", vae.patch),
        ("frames per second", vae.fps or "each clip's own"),
        ("stored as", "float16"),
    ]
    return "## Latents\n\n" + table(("", ""), facts) + "\n\n" + code(json.loads(build.last.vae))


def _pixels(build: BuildState, spec: DatasetSpec) -> str:
    return (
        "## Pixels\n\nHow rotation, colour, HDR, interlacing and time were treated is one contract "
        f"(docs/pixels.md of Telecine), version {spec.pixels.version}, HDR: {spec.pixels.hdr}, "
        f"fingerprint `{build.last.pixel_fingerprint}`. Each sample's JSON says what it met."
    )


def _left_out(found: Summary, report: BuildReport, spec: DatasetSpec) -> str:
    parts = [
        "## What was left out",
        "Sources and frames are those of the whole dataset, as it is now.",
        _reasons("sources rejected", found.rejected),
        _reasons("frames dropped", found.frames_dropped),
        _reasons("clips dropped from this build", report.dropped),
    ]
    if spec.select.where:
        parts += ["Clips were taken where", fenced("sql", spec.select.where)]
    return "\n\n".join(parts)


def _reasons(what: str, counts: dict[str, int]) -> str:
    if not counts:
        return f"{what}: none"
    return table((what, "number"), sorted(counts.items()))


# ── Markdown, whatever the text in it ────────────────────────────────────────────────────────────


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int):
        return f"{value:,}"
    return re.sub(r"\s+", " ", str(value)).replace("|", "\\|")


def code(value: Mapping[str, Any]) -> str:
    """A line per key."""
    lines = [f"  {json.dumps(key)}: {json.dumps(part)}" for key, part in value.items()]
    return fenced("json", "{\n" + ",\n".join(lines) + "\n}")


def fenced(language: str, text: str) -> str:
    """A fence longer than any within."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


_HOW_TO_LOAD = """## How to load

`croissant.json`, beside this page, names every shard with its digest.

```python
import json
from pathlib import Path

import webdataset as wds

listed = json.loads(Path("croissant.json").read_text())["distribution"]
urls = [each["contentUrl"] for each in listed if each["@type"] == "cr:FileObject"]
urls = [f"pipe:aws s3 cp {url} -" if url.startswith("s3:") else url for url in urls]
for sample in wds.WebDataset(urls, shardshuffle=False).decode():
    latents, facts, caption = sample["latent.npy"], sample["json"], sample["txt"]
    print(latents.shape, caption)  # to stack samples, group them by facts["latent"]["shape"]
```"""
