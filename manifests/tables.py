"""The tables of a dataset on disk or in object storage: append-only, one atomic commit at a time.

    <dataset>/tables/<name>/_delta_log/00000000000000000007.json  the commit, by put-if-absent
                            part-….parquet                        rows, seen once a commit names it

Each table is a Delta Lake table that DuckDB, Polars, Spark and others read without this code.
Two tables cannot commit together: writers order their commits so that the last one makes the
work visible (stills, clips, then sources).
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias, TypeVar
from urllib.parse import quote, urlsplit

import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import (
    ColumnProperties,
    CommitProperties,
    DeltaTable,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import DeltaError, TableNotFoundError
from pyarrow import fs

from telecine.infra.errors import CommitError, StorageError, UsageError
from telecine.manifests import evolve
from telecine.manifests.evolve import Columns
from telecine.manifests.schemas import TABLES, Row, arrow_schema, from_arrow, to_arrow

if TYPE_CHECKING:
    from telecine.manifests.store_files import StoreFiles

RowType = TypeVar("RowType", bound=Row)

StorageOptions: TypeAlias = Mapping[str, str] | Callable[[], Mapping[str, str]]

NO_TABLE = -1  # the version of a table that does not exist

COMPACT_EVERY = 256  # commits
COMPACT_BYTES = 32 * 2**20  # larger files are left as they are

RETENTION_HOURS = 7 * 24  # of files that the version in view no longer names

# To find a few stills in a store is to read whole row groups: 256 of them are some megabytes.
_STILLS_TOGETHER = 256

_MARK = "telecine"  # the log's name for the random number by which a writer knows its commit
_WRITER = "telecineVersion"  # the log's name for the version that made a commit

_CONFIGURATION: Mapping[str, str | None] = {
    "delta.appendOnly": "true",
    # Opening reads the last checkpoint and the commits since.
    "delta.checkpointInterval": "100",
    # A plan pins table versions: the log keeps them all.
    "delta.enableExpiredLogCleanup": "false",
    "delta.logRetentionDuration": "interval 36500 days",
    # Keys are hashes: per-file minima and maxima prune nothing and would be most of the log.
    "delta.dataSkippingNumIndexedCols": "0",
}


def _writer(name: str) -> WriterProperties:
    """Of a table's Parquet files.

    With statistics a footer would hold the smallest and the largest picture of each row group,
    and every reader would fetch them.
    """
    pictures = [c.name for c in arrow_schema(TABLES[name]) if pa.types.is_binary(c.type)]
    return WriterProperties(
        compression="ZSTD",
        max_row_group_size=_STILLS_TOGETHER if name == "stills" else None,
        column_properties={c: ColumnProperties(statistics_enabled="NONE") for c in pictures},
    )


# deltalake 1.6 panics or takes the name for a quoted one.
_UNNAMABLE = re.compile(r"[\[\]^|\\\x00-\x1f\x7f]|%[0-9a-fA-F]{2}")


class Tables:
    """Every table of one dataset, as it stood when this object first looked, plus its own appends.

    A dataset has one writer at a time, and this is checked, not trusted: a commit is made for
    exactly the version after the one last seen and never retried onto a later one, so of two runs
    that write the same table one gets CommitError and has written nothing. Because all tables are
    looked at together and never looked at again, no decision made from them can be out of date by
    the time it is committed. Readers that want news make a new Tables.

    `options` are deltalake's storage options (`Storage.delta_options`), empty on disk; or a
    function that gives them, asked before every commit: credentials expire during a long run.
    `compact_every` so many commits the small files of a table become one.
    """

    def __init__(
        self,
        uri: str,
        options: StorageOptions = MappingProxyType({}),
        compact_every: int = COMPACT_EVERY,
    ) -> None:
        self.uri = uri.rstrip("/") if "://" in uri else str(Path(uri).resolve())
        if _UNNAMABLE.search(self.uri):
            raise UsageError(
                f"{uri!r} cannot hold a dataset: the table format takes no [ ] ^ | \\, no control "
                "character and no % before two hexadecimal digits in its name. Choose another name"
            )
        self._compact_every = compact_every
        self._ask_options = options if callable(options) else lambda: options
        self._options = dict(self._ask_options())
        self._opened: dict[str, DeltaTable | None] = {}
        self._pinned: dict[tuple[str, int], DeltaTable | None] = {}  # of past versions
        self._s3: tuple[Mapping[str, str], fs.FileSystem] | None = None  # of which options
        self._store_files: StoreFiles | None = None

    def append(self, name: str, rows: Sequence[Row]) -> int:
        """Commit the rows in one step and return the table's version; no rows, no commit.

        A column that the table lacks is added in the same step; one that must have a value there
        and is NULL in a row is first freed of that, in a step of its own. Raises CommitError if
        nothing was committed and UsageError where the table's columns are not to be reconciled
        with the rows'.
        """
        if not rows:
            return self.version(name)
        declared = to_arrow(rows, TABLES[name])
        if (table := self._table(name)) and (why := self._columns(name, table).unwritable()):
            raise UsageError(self._of_another_version(name, table, why))

        for column in self.columns(name).bound(declared):
            self._free(name, column)

        def write(table: DeltaTable, once: CommitProperties) -> None:
            columns = self._columns(name, table)
            write_deltalake(
                table,
                columns.to_append(declared),
                mode="append",
                schema_mode="merge" if columns.missing or columns.unknown else None,
                writer_properties=_writer(name),
                commit_properties=once,
            )

        if self._commit(name, write) % self._compact_every == 0:
            self._compact(name)
        return self.version(name)

    def _free(self, name: str, column: str) -> None:
        """Lets NULL into a column. The rows stay as they are, and past versions readable."""
        self._commit(
            name,
            lambda table, once: table.alter.drop_column_not_null(column, commit_properties=once),
        )

    def version(self, name: str) -> int:
        """The version in view, from 0; -1 where there is no table."""
        table = self._table(name)
        return NO_TABLE if table is None else table.version()

    def dataset(self, name: str, version: int | None = None) -> ds.Dataset:
        """The rows, not yet read; an empty dataset with the schema where there is no table.

        Of a table of another version NULL may stand for a default.
        """
        table = self._table(name, version)
        if table is None:
            return ds.dataset(arrow_schema(TABLES[name]).empty_table())
        found = table.to_pyarrow_dataset(filesystem=self._filesystem(name))
        declared = arrow_schema(TABLES[name])
        if found.schema.names == declared.names:
            return found
        nullable = [field.with_nullable(True) for field in declared]
        return found.replace_schema(pa.schema(nullable))

    def columns(self, name: str, version: int | None = None) -> Columns:
        """What the table has, beside what is declared; the same where there is no table."""
        table = self._table(name, version)
        if table is None:
            return Columns(TABLES[name], arrow_schema(TABLES[name]))
        return self._columns(name, table)

    def files(self, name: str, version: int | None = None) -> list[str]:
        """Paths or URIs of the Parquet files that hold the rows; the latter by `store_files`."""
        table = self._table(name, version)
        if table is None:
            return []
        added = pa.table(table.get_add_actions())
        files = [self.path(name, path) for path in added.column("path").to_pylist()]
        if not self.on_disk:
            sizes = added.column("size_bytes").to_pylist()
            self.store_files.know(dict(zip(files, sizes, strict=True)))
        return files

    def path(self, name: str, file: str) -> str:
        """Path or URI of a table's file, as `files` has it."""
        return f"{self.uri}/tables/{name}/{file}"

    def unreferenced(
        self, name: str, keep: Iterable[int] = (), older_than_hours: int = RETENTION_HOURS
    ) -> list[str]:
        """Files of a table that neither the version in view nor those to keep name.

        Relative to the dataset; some may be gone already. Without them no other version can be
        read. A younger file may be that of a commit under way, or be open in a reader.
        """
        table = self._table(name)
        if table is None:
            return []
        versions = sorted({v for v in keep if v >= 0} | {table.version()})
        try:
            paths = table.vacuum(
                older_than_hours,
                dry_run=True,
                enforce_retention_duration=False,
                full=True,
                keep_versions=versions,
            )
        except (DeltaError, OSError) as error:
            raise StorageError(
                f"cannot list old files of table {name} of {self.uri}: {one_line(error)}"
            ) from error
        return sorted(f"tables/{name}/{path}" for path in paths)

    @property
    def on_disk(self) -> bool:
        return "://" not in self.uri

    @property
    def store_files(self) -> StoreFiles:
        """Through which DuckDB reads from object storage."""
        if self._store_files is None:
            from telecine.manifests.store_files import StoreFiles  # slow to load, and rarely needed

            self._store_files = StoreFiles(self._store)
        return self._store_files

    @property
    def bytes_read(self) -> int:
        """Bytes of Parquet that DuckDB read from object storage; those on disk are not counted."""
        return self._store_files.bytes_read if self._store_files else 0

    def arrow(
        self,
        name: str,
        columns: Sequence[str] | None = None,
        version: int | None = None,
    ) -> pa.Table:
        """Rows as Arrow, in no particular order; only the columns named are read."""
        names = list(columns) if columns is not None else arrow_schema(TABLES[name]).names
        with self.reading(name):
            table = self.dataset(name, version).to_table(columns=names)
        return self.columns(name, version).filled(table)

    def rows(self, row: type[RowType], version: int | None = None) -> list[RowType]:
        """Rows as values, in no particular order."""
        name = next(n for n, r in TABLES.items() if r is row)
        return from_arrow(self.arrow(name, version=version), row)

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[None]:
        """Turns what Arrow and the disk say of a file that is gone or damaged into StorageError."""
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            raise StorageError(
                f"table {name} of {self.uri} cannot be read: {one_line(error)}"
            ) from error

    # ── opening ──────────────────────────────────────────────────────────────────────────────────

    def _table(self, name: str, version: int | None = None) -> DeltaTable | None:
        if not self._opened:
            self._opened = {n: self._open(n) for n in TABLES}
        if version == NO_TABLE:
            return None
        table = self._opened[name]
        if version is None or table is None or version == table.version():
            return table
        if version > table.version():
            raise UsageError(
                f"table {name} of {self.uri} has no version {version}: its last is "
                f"{table.version()}"
            )
        if (name, version) not in self._pinned:
            self._pinned[name, version] = self._open(name, version)
        return self._pinned[name, version]

    def _open(self, name: str, version: int | None = None) -> DeltaTable | None:
        try:
            table = DeltaTable(self._location(name), version=version, storage_options=self._options)
        except TableNotFoundError:
            return None
        except (DeltaError, OSError) as error:
            raise StorageError(
                f"cannot open table {name} of {self.uri}: {one_line(error)}"
            ) from error
        if why := self._columns(name, table).problems():
            raise UsageError(self._of_another_version(name, table, why))
        return table

    def _location(self, name: str) -> str:
        """What deltalake is to be given for a plain path or an unquoted S3 URI."""
        if self.on_disk:
            return f"{self.uri}/tables/{name}"
        scheme, _, key = self.uri.partition("://")
        return f"{scheme}://{quote(key)}/tables/{name}"

    def _filesystem(self, name: str) -> fs.FileSystem:
        """Arrow's own, in C++. Reading through deltalake's is slower, and its threads now and then
        outlive the interpreter: "terminate called without an active exception", exit code 134.
        """
        if self.on_disk:
            return fs.SubTreeFileSystem(f"{self.uri}/tables/{name}", fs.LocalFileSystem())
        root = f"{self.uri.partition('://')[2]}/tables/{name}"
        return fs.SubTreeFileSystem(root, self._store())

    def _store(self) -> fs.FileSystem:
        options = dict(self._ask_options())
        if self._s3 is None or self._s3[0] != options:
            endpoint = urlsplit(options.get("AWS_ENDPOINT_URL", ""))
            store = fs.S3FileSystem(
                access_key=options.get("AWS_ACCESS_KEY_ID"),
                secret_key=options.get("AWS_SECRET_ACCESS_KEY"),
                session_token=options.get("AWS_SESSION_TOKEN"),
                region=options.get("AWS_REGION"),
                scheme=endpoint.scheme or None,
                endpoint_override=endpoint.netloc or None,
            )
            self._s3 = options, store
        return self._s3[1]

    def _columns(self, name: str, table: DeltaTable) -> Columns:
        return Columns(TABLES[name], pa.schema(table.schema().to_arrow()))

    def _of_another_version(self, name: str, table: DeltaTable, why: Sequence[str]) -> str:
        """What stands in the way, and which Telecine wrote it, as its commits say."""
        wrote = next((c[_WRITER] for c in table.history() if _WRITER in c), None)
        by = f"Telecine {wrote}" if wrote else "a Telecine that did not note its version"
        return (
            f"table {name} of {self.uri} is not one that this Telecine ({evolve.version()}, format "
            f"{evolve.FORMAT}) can work with: {'; '.join(why)}. It was last written by {by}. Use "
            "that version, or ingest into a new dataset"
        )

    # ── committing ───────────────────────────────────────────────────────────────────────────────

    def _commit(self, name: str, write: Callable[[DeltaTable, CommitProperties], object]) -> int:
        self._renew_options()
        table = self._table(name) or self._create(name)
        seen, mark = table.version(), secrets.randbits(62)
        once = CommitProperties(
            custom_metadata={_WRITER: evolve.version()},
            app_transactions=[Transaction(_MARK, mark)],
            max_commit_retries=0,
        )
        try:
            write(table, once)
        except (DeltaError, OSError) as error:
            self._opened[name] = self._resolve(name, seen, mark, error)
        return self.version(name)

    def _compact(self, name: str) -> None:
        """Merge small files. The rows stay as they are, and past versions readable.

        Each file costs every later commit some 60 microseconds and every read a millisecond.
        """

        def merge(table: DeltaTable, once: CommitProperties) -> object:
            return table.optimize.compact(
                target_size=COMPACT_BYTES,
                max_concurrent_tasks=1,
                writer_properties=_writer(name),
                commit_properties=once,
            )

        # The rows are committed: what stands in the way of this will be told by the next append.
        with contextlib.suppress(CommitError):
            self._commit(name, merge)

    def _renew_options(self) -> None:
        options = dict(self._ask_options())
        if options != self._options:
            self._options = options
            for name, table in self._opened.items():
                self._opened[name] = table and self._open(name, table.version())

    def _create(self, name: str) -> DeltaTable:
        try:
            table = DeltaTable.create(
                self._location(name),
                schema=arrow_schema(TABLES[name]),
                mode="error",
                configuration=_CONFIGURATION,
                storage_options=self._options,
            )
        except (DeltaError, OSError) as error:
            if self._open(name) is not None:
                raise self._conflict(name) from error
            raise self._failed(name, error) from error
        self._opened[name] = table
        return table

    def _resolve(self, name: str, seen: int, mark: int, error: Exception) -> DeltaTable:
        """Our own commit, if it is there after all: an answer lost on the way looks like an error.

        Otherwise raises CommitError; the table stays as it was last seen.
        """
        try:
            last = self._open(name)
            next_one = self._open(name, seen + 1) if last and last.version() > seen else None
        except StorageError as again:
            raise CommitError(
                f"the store failed during a commit to table {name} of {self.uri} and cannot be "
                f"asked whether it took it: {one_line(error)}. Run again: what is there will be "
                "found"
            ) from again
        if next_one is None:
            raise self._failed(name, error) from error
        if next_one.transaction_version(_MARK) != mark:
            raise self._conflict(name) from error
        return next_one

    def _conflict(self, name: str) -> CommitError:
        return CommitError(
            f"another run is writing to this dataset ({self.uri}, table {name}). Nothing of this "
            "commit is visible. Wait for the other run to end, then run again"
        )

    def _failed(self, name: str, error: Exception) -> CommitError:
        return CommitError(
            f"cannot write to table {name} of {self.uri}: {one_line(error)}. Nothing of this "
            "commit is visible; correct the cause and run again"
        )


def words(error: Exception) -> str:
    """What DuckDB says; of a file in a store that cannot be read, without Python's stack."""
    return _STACK.sub("IO Error: ", str(error))


_STACK = re.compile(r"Traceback \(most recent call last\):\n.*\n\s*OSError: ", re.DOTALL)


def one_line(error: Exception) -> str:
    """What an error of these libraries says, without deltalake's colours, its Rust backtrace, and
    the line of our own SQL that DuckDB points at.
    """
    message, *_ = re.split(r"\n\s+0: |\n\s*LINE \d+: ", words(error), maxsplit=1)
    return " ".join(re.sub(r"\x1b\[\d*m", "", message).split()) or type(error).__name__
