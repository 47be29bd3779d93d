"""Refuses a checkout whose links git wrote as files; pyproject.toml says all the rest."""

from pathlib import Path

from setuptools import setup

for room in ("pipeline", "encoders", "manifests", "infra"):
    if not (Path(__file__).parent / "telecine" / room).is_dir():
        raise SystemExit(
            f"telecine/{room} is no folder: it is a link to {room}/, which this git wrote as a "
            "file. Say git config core.symlinks true, then git checkout HEAD -- telecine"
        )

setup()
