"""The exporters, a row each. Help, options, documents and tests go by these rows.

    a new format = a module with a function, and a row here (docs/extending.md)

A plug-in names a row of its own as an entry point of `telecine.exporters`; it is treated as these.
"""

from __future__ import annotations

import dataclasses
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

from telecine.infra import plugins
from telecine.infra.errors import UsageError
from telecine.infra.store.storage import join

if TYPE_CHECKING:  # the rows are read for --help, which needs no tables
    import duckdb

    from telecine.manifests.builds import BuildState
    from telecine.manifests.dataset import Dataset
    from telecine.manifests.shards import Shard


@dataclass(frozen=True)
class Options:
    """What may be asked of an exporter whose row says that it takes it; None: nothing was."""

    prefix: str | None = None  # where the dataset will lie
    split: str | None = None  # shares of train, val and test


@dataclass(frozen=True)
class Content:
    """What is exported: a completed build and its shards, one at least."""

    dataset: Dataset
    con: duckdb.DuckDBPyConnection  # over the dataset's tables
    build: BuildState
    shards: list[Shard]
    options: Options

    def url(self, path: str) -> str:
        """Of a path relative to the dataset: under it or the prefix, or in place of the {}."""
        root = self.options.prefix or self.dataset.uri
        return root.replace("{}", path) if "{}" in root else join(root, path)


# Writes files into an empty folder, from which they are moved to their place. Returns notes: what
# is left to do, or to know. Raises UsageError where an option's value is not for this format.
Writer: TypeAlias = Callable[[Path, Content], tuple[str, ...]]


@dataclass(frozen=True)
class Exporter:
    name: str  # --format NAME
    help: str
    write: str  # the Writer, as module:function: it is imported when it is to write
    last: str  # the file that names the others: moved to its place after them
    takes: tuple[str, ...] = ()  # fields of Options

    def writer(self) -> Writer:
        return cast(Writer, pkgutil.resolve_name(self.write))


EXPORTERS = (
    Exporter(
        name="urls",
        help="lists of shards for webdataset, of all and by bucket",
        write="telecine.pipeline.export.urls:write_urls",
        last="index.json",
        takes=("prefix",),
    ),
    Exporter(
        name="energon",
        help="an index for Megatron-Energon, beside links to the shards",
        write="telecine.pipeline.export.energon:write_energon",
        last=".nv-meta/.info.json",
        takes=("split",),
    ),
    Exporter(
        name="card",
        help="a dataset card and Croissant metadata",
        write="telecine.pipeline.export.card:write_card",
        last="README.md",
        takes=("prefix",),
    ),
)


def exporter(name: str) -> Exporter:
    """The row of that name, here or of a plug-in. Raises UsageError where there is none."""
    rows = {row.name: row for row in EXPORTERS}
    if plugin := plugins.find(plugins.EXPORTERS, name, built_in=rows):
        return dataclasses.replace(plugin.load(Exporter), name=plugin.name)
    if name in rows:
        return rows[name]
    choice = ", ".join([*rows, *plugins.listed(plugins.EXPORTERS)])
    raise UsageError(f"--format {name!r}: choose one of {choice}")


def taking(option: str) -> str:
    """The formats here that take an option, in words."""
    return " and ".join(row.name for row in EXPORTERS if option in row.takes)


def check_options(row: Exporter, options: Options) -> None:
    """Raises UsageError where one is given that the format does not take."""
    for field in dataclasses.fields(options):
        if getattr(options, field.name) is not None and field.name not in row.takes:
            raise UsageError(
                f"--{field.name} is for --format {taking(field.name)}, not for {row.name}"
            )
    if options.prefix is not None and not options.prefix.isprintable():
        raise not_a_place(options.prefix)


def not_a_place(prefix: str) -> UsageError:
    return UsageError(
        f"--prefix {prefix!r}: write where the dataset will lie, as in https://host/data"
    )
