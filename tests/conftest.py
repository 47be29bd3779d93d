"""Fixtures every test may use."""

from __future__ import annotations

import os
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from telecine.infra.store.storage import Storage
from telecine.pipeline.demo.footage import render
from tests.support.s3 import S3Server, moto_server

# A busy machine is no failure: no example of a property has a time.
settings.register_profile("telecine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("telecine")

collect_ignore = ["plugin"]  # the tests of its author, who has it installed: test_plugin.py

# Ray's worker processes import what the tests hand them.
os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])


@pytest.fixture(scope="session")
def footage() -> Path:
    """Folder of real footage; a test that needs it skips visibly where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "footage"
    folder = Path(os.environ.get("TELECINE_FOOTAGE", default))
    if not (folder / "INDEX.csv").exists():
        pytest.skip(f"no footage at {folder}; set TELECINE_FOOTAGE to run this test")
    return folder


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """Starts `moto_server` on a free port; its end is certain even if a test hangs."""
    with moto_server() as endpoint_url:
        yield endpoint_url


@pytest.fixture
def aws_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An AWS environment with test credentials and nothing of the machine's own."""
    for name in [n for n in os.environ if n.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "telecine-test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "telecine-test-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))
    return monkeypatch


@pytest.fixture
def s3(s3_endpoint: str, aws_environment: pytest.MonkeyPatch) -> S3Server:
    """The server with a fresh bucket; AWS_ENDPOINT_URL points at it, in child processes too."""
    aws_environment.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    server = S3Server(s3_endpoint, f"test-{uuid.uuid4().hex}")
    request = urllib.request.Request(f"{s3_endpoint}/{server.bucket}", method="PUT")
    urllib.request.urlopen(request).close()
    return server


@pytest.fixture(scope="session")
def demo_footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's footage, rendered once. Copy it before changing any of it."""
    folder = tmp_path_factory.mktemp("demo") / "footage"
    render(folder)
    return folder


@pytest.fixture
def storage() -> Storage:
    return Storage()


@pytest.fixture(params=["disk", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Every test that takes it runs on disk and on S3."""
    if request.param == "disk":
        return str(tmp_path / "root")
    server: S3Server = request.getfixturevalue("s3")
    return server.uri("root")
