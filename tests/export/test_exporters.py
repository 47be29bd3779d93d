"""What every exporter promises, over every one there is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from telecine.pipeline.export.formats import EXPORTERS, Exporter, exporter
from telecine.testing.exporters import ExporterContract


class TestEveryExporter(ExporterContract):
    @pytest.fixture(params=[row.name for row in EXPORTERS])
    def make(self, request: pytest.FixtureRequest) -> Callable[[], Exporter]:
        return lambda: exporter(request.param)
