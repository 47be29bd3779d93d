"""What the author of a plug-in runs: Telecine's own contracts, over what is installed.

pip install telecine pytest . && pytest tests
"""

from collections.abc import Callable

import pytest

from telecine.encoders.caption.interface import Captioner
from telecine.encoders.load import load_captioner, load_encoder, load_scorer
from telecine.encoders.score.interface import Scorer
from telecine.encoders.video.interface import VideoEncoder
from telecine.manifests.specs import CaptionSpec, ScoreSpec, VaeSpec
from telecine.pipeline.export.formats import Exporter, exporter
from telecine.testing import (
    CaptionerContract,
    EncoderContract,
    ExporterContract,
    ScorerContract,
)


class TestMosaic(EncoderContract):
    @pytest.fixture
    def make(self) -> Callable[[], VideoEncoder]:
        return lambda: load_encoder(VaeSpec(encoder="mosaic"))


class TestFacts(CaptionerContract):
    @pytest.fixture
    def make(self) -> Callable[[], Captioner]:
        return lambda: load_captioner(CaptionSpec(captioner="facts:Footage"))


class TestTint(ScorerContract):
    @pytest.fixture
    def make(self) -> Callable[[], Scorer]:
        return lambda: load_scorer(ScoreSpec(scorer="tint"))


class TestManifest(ExporterContract):
    @pytest.fixture
    def make(self) -> Callable[[], Exporter]:
        return lambda: exporter("manifest")
