"""manifest: SHA-256 and path of every shard, as `sha256sum --check` reads them."""

from pathlib import Path

from telecine.pipeline.export.formats import Content, Exporter


def write(folder: Path, content: Content) -> tuple[str, ...]:
    lines = [f"{shard.sha256}  {shard.path}\n" for shard in content.shards]
    (folder / "SHA256SUMS").write_text("".join(lines))
    return ("check a copy with: sha256sum --check SHA256SUMS",)


EXPORTER = Exporter(
    name="manifest",
    help="digests of the shards",
    write=f"{__name__}:write",
    last="SHA256SUMS",
)
