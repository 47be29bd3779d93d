"""Discover: what objects are there, and which of them are news to a dataset."""

from __future__ import annotations

from dataclasses import dataclass

from infra.storage import ObjectInfo
from manifests.fingerprint import short_id


def source_id(uri: str, version: str) -> str:
    """Names one version of one object."""
    return short_id("source", uri, version)


@dataclass(frozen=True, slots=True)
class Found:
    """One object under the roots, with the caption file beside it (empty if there is none)."""

    uri: str
    version: str
    size_bytes: int
    sidecar_uri: str = ""
    sidecar_version: str = ""

    @property
    def source_id(self) -> str:
        return source_id(self.uri, self.version)

    @property
    def info(self) -> ObjectInfo:
        return ObjectInfo(self.uri, self.size_bytes, self.version)


@dataclass(frozen=True, slots=True)
class ScanTask:
    """An object to scan, and the revision its row will have."""

    found: Found
    revision: int
