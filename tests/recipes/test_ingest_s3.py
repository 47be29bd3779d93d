"""The main job from an S3 server process on loopback into the same: keys, pages, ranges."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import boto3
import numpy as np
import pytest
import webdataset
from PIL import Image

from telecine.infra.store.storage import Storage
from telecine.manifests.dataset import create_dataset
from tests.support.commands import inspect, telecine
from tests.support.rows import make_clip, make_source, make_still
from tests.support.s3 import S3Server

KEYS = (
    "a b+c&d=(1)#%.mp4", "日本/été.mov", "no extension", "films/.hidden name.mkv", "x//double.mp4",
    "wrong.jpg",
)  # fmt: skip

IMAGES = 20


def tiny(n: int) -> bytes:
    """A 160×160 image unlike any other."""
    pixels = np.random.default_rng(n).integers(0, 256, (20, 20, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((160, 160)).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def bucket(s3: S3Server, demo_footage: Path) -> S3Server:
    """Strange keys of one film each, and images on the second page of a listing."""
    client = boto3.client("s3")
    films = sorted(p for p in demo_footage.glob("*.mp4") if "broken" not in p.name)
    for key, film in zip(KEYS, films * 2, strict=False):
        client.put_object(Bucket=s3.bucket, Key=f"in/{key}", Body=film.read_bytes())
    for n in range(1005):
        client.put_object(Bucket=s3.bucket, Key=f"in/images/._{n:04d}", Body=b"a dropping")
    for n in range(IMAGES):
        client.put_object(Bucket=s3.bucket, Key=f"in/images/more {n}", Body=tiny(n))
    client.close()
    return s3


# webdataset leaves its files for the garbage collector to close.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_both_sides_on_s3(bucket: S3Server, tmp_path: Path) -> None:
    dataset = bucket.uri("out", "data set")
    done = telecine("ingest", bucket.uri("in"), "--dataset", dataset, "--json")
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["scan"]["scanned"] == IMAGES + len(KEYS)
    assert outcome["scan"]["rejected"] == 0
    # Read by ranges: about once for the scan, about the spans for the build.
    assert outcome["scan"]["bytes_read"] <= 1.1 * outcome["scan"]["bytes_of_footage"]
    uris = {s["uri"] for s in inspect(dataset, "sources", "--limit", "0")}
    assert {bucket.uri("in", key) for key in KEYS} <= uris

    client = boto3.client("s3")
    samples = inspect(dataset, "samples", "--limit", "0")
    assert len(samples) == outcome["build"]["samples"]
    local = tmp_path / "shard.tar"
    client.download_file(bucket.bucket, f"out/data set/{samples[0]['shard_path']}", str(local))
    client.close()
    (first, *_) = webdataset.WebDataset(str(local), shardshuffle=False).decode()
    assert np.isfinite(first["latent.npy"]).all()

    again = telecine("ingest", bucket.uri("in"), "--dataset", dataset, "--json")
    assert not any(json.loads(again.stdout)["scan"].values())


def test_looking_at_a_dataset_on_s3_says_what_was_read(s3: S3Server) -> None:
    dataset = s3.uri("d")
    made = create_dataset(dataset, Storage(), None)
    made.tables.append("stills", [make_still(jpeg=tiny(1))])
    made.tables.append("clips", [make_clip()])
    made.tables.append("sources", [make_source()])
    clip = make_clip().clip_id
    for args in (
        ["inspect", dataset, "--json"],
        ["inspect", dataset, "clips", "--json"],
        ["inspect", dataset, "clip", clip, "--json"],
        ["query", dataset, "SELECT count(*) FROM dataset", "--json"],
        ["explain", dataset, clip, "--json"],
    ):
        done = telecine(*args)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)
        assert re.fullmatch(rf"read [1-9][\d.]* k?B of tables from {dataset}\n", done.stderr)


def test_a_missing_bucket_is_said_plainly(s3: S3Server, tmp_path: Path) -> None:
    done = telecine("ingest", "s3://no-such-bucket/in", "--dataset", tmp_path / "d")
    assert done.returncode == 3
    assert "no-such-bucket" in done.stderr
    assert "Traceback" not in done.stderr
