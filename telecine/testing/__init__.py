"""What every model and exporter promises, as tests: for Telecine's own and for plug-ins.

    from telecine.testing import CaptionerContract

    class TestEcho(CaptionerContract):
        @pytest.fixture
        def make(self):
            return lambda: load_captioner(CaptionSpec(captioner="echo:hello"))

`make` gives a function that makes the thing to be tested, each time anew unless making it is slow.
docs/extending.md tells the whole of it.
"""

from __future__ import annotations

import sys

if pytest := sys.modules.get("pytest"):  # so that a failed assert shows its values
    pytest.register_assert_rewrite(
        *(f"{__name__}.{name}" for name in ("encoders", "captioners", "scorers", "exporters"))
    )

from telecine.testing.captioners import CaptionerContract
from telecine.testing.encoders import EncoderContract
from telecine.testing.exporters import ExporterContract
from telecine.testing.scorers import ScorerContract

__all__ = ["CaptionerContract", "EncoderContract", "ExporterContract", "ScorerContract"]
