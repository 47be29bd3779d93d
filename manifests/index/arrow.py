"""An index as an Arrow file: rows, and in the schema's metadata what they have in common.

It can be mapped: nothing is parsed but that metadata.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa

from telecine.infra.errors import UsageError
from telecine.infra.store.storage import Storage, is_s3

Facts = TypeVar("Facts")

_META = b"telecine"


def arrow_bytes(facts: object, rows: pa.Table, version: int) -> memoryview:
    """As an Arrow file. The same facts, a dataclass, and rows give the same bytes."""
    said = json.dumps({"version": version, **vars(facts)}, sort_keys=True)
    table = rows.replace_schema_metadata({_META: said.encode()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return memoryview(sink.getvalue())


@dataclass(frozen=True)
class Format:
    """A kind of index, as messages call it."""

    what: str  # as in "no index of samples"
    version: int
    made_by: str  # as in "telecine embed writes it"


def arrow_read(
    source: pa.Buffer | pa.NativeFile, where: str, form: Format, facts: Callable[..., Facts]
) -> tuple[Facts, pa.Table]:
    """Facts and rows; `where` is the file's name in messages.

    Raises UsageError where it is none, or one of a version that this Telecine does not know.
    """
    try:
        rows = pa.ipc.open_file(source).read_all()
        said: dict[str, Any] = json.loads((rows.schema.metadata or {})[_META])
        version = said.pop("version")
        if version == form.version:
            return facts(**said), rows
    except (pa.ArrowInvalid, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{where} is no {form.what} ({error}): {form.made_by}") from error
    raise UsageError(
        f"{where} is an {form.what} of version {version}; this Telecine reads version "
        f"{form.version}. Use the one that wrote it, or a newer one"
    )


def arrow_source(uri: str, storage: Storage) -> pa.Buffer | pa.NativeFile:
    """Mapped where it lies on this machine. Raises NotFound, or on disk OSError, where it is not
    there.
    """
    return pa.py_buffer(storage.read_bytes(uri)) if is_s3(uri) else pa.memory_map(uri)
