"""Tables as another version of Telecine leaves them, written by deltalake alone."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, write_deltalake


def write_table(
    uri: str,
    name: str,
    rows: pa.Table,
    options: Mapping[str, str] | None = None,
    wrote: str | None = None,
) -> None:
    """A new table of the rows, of their schema. `wrote`: the version its commits name."""
    where = f"{uri}/tables/{name}"
    given = dict(options or {})
    append_only = {"delta.appendOnly": "true"}
    DeltaTable.create(where, schema=rows.schema, configuration=append_only, storage_options=given)
    noted = CommitProperties(custom_metadata={"telecineVersion": wrote} if wrote else {})
    write_deltalake(where, rows, mode="append", commit_properties=noted, storage_options=given)
