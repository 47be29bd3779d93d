"""A dataset: where it is, the specs it was made with (`telecine.toml`), and its tables."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError

from telecine.infra.errors import CommitError, NoBucket, NotFound, UsageError
from telecine.infra.store.storage import Storage, is_s3, join
from telecine.manifests.evolve import stamp, version, without_stamp
from telecine.manifests.fingerprint import flat
from telecine.manifests.specs import DatasetSpec
from telecine.manifests.tables import Tables

SPEC_FILE = "telecine.toml"


@dataclass(frozen=True)
class Dataset:
    uri: str
    storage: Storage
    spec: DatasetSpec  # what a run is to make
    tables: Tables
    stored: DatasetSpec | None = None  # what telecine.toml said when it was read; None: not there

    def path(self, relative: str) -> str:
        return join(self.uri, relative)


def open_dataset(uri: str, storage: Storage) -> Dataset:
    """A dataset that is there. Raises UsageError where there is none."""
    stored = _stored_spec(uri, storage)
    if stored is None:
        raise UsageError(
            f"there is no dataset at {uri}: it has no {SPEC_FILE}. "
            f"Check the name, or make one with: telecine ingest SOURCE... --dataset {uri}"
        )
    return Dataset(uri, storage, stored, Tables(uri, lambda: storage.delta_options(uri)), stored)


def resolve_dataset(uri: str, storage: Storage, given: DatasetSpec | None) -> Dataset:
    """The dataset at `uri`, or the one to be made there with the spec given (None: the defaults).

    Writes nothing. Raises UsageError where a key that was given differs from the stored one; keys
    that were not given are the stored ones.
    """
    if not is_s3(uri) and Path(uri).is_file():
        raise UsageError(f"cannot make a dataset at {uri}: it is a file; name a folder")
    stored = _stored_spec(uri, storage)
    if stored is not None and given is not None and (differences := _differences(stored, given)):
        raise UsageError(
            f"the spec given contradicts the one in force for {uri}:\n"
            + "\n".join(differences)
            + f"\nLeave these keys as {join(uri, SPEC_FILE)} has them, or ingest into a new "
            "dataset; all but scan and pixels can be changed by telecine rebuild."
        )
    spec = stored or given or DatasetSpec()
    return Dataset(uri, storage, spec, Tables(uri, lambda: storage.delta_options(uri)), stored)


def write_spec(dataset: Dataset) -> None:
    """From here on the dataset is there. Leaves a spec that is stored as it is."""
    if not dataset.storage.exists(dataset.path(SPEC_FILE)):
        _write(dataset, dataset.spec)


def replace_spec(dataset: Dataset, spec: DatasetSpec) -> Dataset:
    """The dataset with another spec in force; writes only what is not there already.

    Atomic: a reader sees the old spec or the new one, whole. Raises UsageError where scan or
    pixels would change, which clips and stills were made with; CommitError where the file is no
    longer as this run read it, so that what another run wrote meanwhile is not lost.
    """
    read = dataset.stored or dataset.spec
    stored = _stored_spec(dataset.uri, dataset.storage) or read
    fixed = DatasetSpec.model_validate(spec.model_dump(include={"scan", "pixels"}))
    if differences := _differences(stored, fixed):
        raise UsageError(
            f"{dataset.uri} was scanned with another spec:\n"
            + "\n".join(differences)
            + f"\nLeave these keys as {dataset.path(SPEC_FILE)} has them, "
            "or ingest into a new dataset."
        )
    if stored not in (read, spec):
        changed = "\n".join(_differences(stored, read))
        raise CommitError(
            f"{dataset.path(SPEC_FILE)} was changed while this run was busy, by another or by "
            f"hand; given is what it said before:\n{changed}\n"
            "It is left as it is now. Run again, with the spec wanted"
        )
    if stored != spec:
        _write(dataset, spec)
    return dataclasses.replace(dataset, spec=spec, stored=spec)


def _write(dataset: Dataset, spec: DatasetSpec) -> None:
    text = tomli_w.dumps(stamp() | _without_none(spec.canonical()))
    dataset.storage.write_bytes(dataset.path(SPEC_FILE), text.encode())


def create_dataset(uri: str, storage: Storage, given: DatasetSpec | None) -> Dataset:
    """`resolve_dataset` and `write_spec` in one."""
    dataset = resolve_dataset(uri, storage, given)
    write_spec(dataset)
    return dataset


def parse_spec(text: str, where: str) -> DatasetSpec:
    """A `telecine.toml`. Raises UsageError that names the key and what was expected."""
    try:
        return spec_of(tomllib.loads(text), where)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{where} is not TOML: {error}") from error


def spec_of(tables: Mapping[str, Any], where: str) -> DatasetSpec:
    """The spec of a `telecine.toml` with these tables. Raises UsageError as `parse_spec` does."""
    try:
        return DatasetSpec.model_validate(without_stamp(tables, where))
    except ValidationError as error:
        raise UsageError(f"{where}:\n" + "\n".join(map(_explain, error.errors()))) from error


def asked_spec(
    stored: DatasetSpec,
    config: DatasetSpec | None = None,
    *,
    where: str | None = None,
    target_bytes: int | None = None,
) -> DatasetSpec:
    """What a rebuild is to make: the stored spec with the keys of a file, then those of the line.

    An empty `where` takes every clip. Raises UsageError where scan or pixels would change: clips
    and stills are made with them, so only a new dataset can have others.
    """
    given: dict[str, dict[str, Any]] = config.model_dump(exclude_unset=True) if config else {}
    for name in ("scan", "pixels"):
        differences = _differences(stored, DatasetSpec.model_validate({name: given.pop(name, {})}))
        if differences:
            raise UsageError(
                "a rebuild cannot change how footage was scanned:\n"
                + "\n".join(differences)
                + "\nIngest into a new dataset instead."
            )
    line: dict[str, dict[str, Any]] = {
        "select": {} if where is None else {"where": where or None},
        "shards": {} if target_bytes is None else {"target_bytes": target_bytes},
    }
    try:
        return stored.overlaid(given).overlaid(line)
    except ValidationError as error:
        raise UsageError("\n".join(map(_explain, error.errors()))) from error


def _explain(error: Any) -> str:
    key = ".".join(map(str, error["loc"])) or "(file)"
    if error["type"] == "extra_forbidden":
        return (
            f"  {key}: unknown key to this Telecine ({version()}); see the keys there are in "
            "docs/specs.md"
        )
    return f"  {key} = {error['input']!r}: {error['msg']}"


def _stored_spec(uri: str, storage: Storage) -> DatasetSpec | None:
    where = join(uri, SPEC_FILE)
    try:
        return parse_spec(storage.read_bytes(where).decode(), where)
    except NoBucket:
        raise
    except NotFound:
        return None
    except UnicodeDecodeError as error:
        raise UsageError(f"{where} is not UTF-8 text: {error}") from error


def _without_none(value: Any) -> Any:
    """TOML has no null: a key that is None is left out."""
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    return value


def _differences(stored: DatasetSpec, given: DatasetSpec) -> list[str]:
    old = flat(stored.model_dump(mode="json"))
    new = flat(given.model_dump(mode="json", exclude_unset=True))
    return [
        f"  {key}: the dataset has {old.get(key)!r}, given {value!r}"
        for key, value in sorted(new.items())
        if old.get(key) != value
    ]
