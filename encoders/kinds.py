"""What a model's name in a spec stands for: `NAME` or `NAME:REST`, built in or a plug-in's.

    [vae]     encoder   = "diffusers:FOLDER"  ─▶ EncoderKind   ─▶ make ─▶ VideoEncoder
    [caption] captioner = "vlm:FOLDER"        ─▶ CaptionerKind ─▶ make ─▶ Captioner
    [score]   scorer    = "openclip:MODEL"    ─▶ ScorerKind    ─▶ make ─▶ Scorer
    [embed]   encoder   = "t5:FOLDER"         ─▶ TextKind      ─▶ make ─▶ TextEncoder

`load` holds those that are built in; an entry point of a plug-in names one more (docs/extending.md,
`telecine.infra.plugins`). A spec reaches `make` as it stands: REST is its `partition(":")[2]`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from telecine.encoders.caption.interface import Captioner
from telecine.encoders.runtime import ModelRuntime
from telecine.encoders.score.interface import Scorer
from telecine.encoders.text.interface import TextEncoder
from telecine.encoders.video.interface import VideoEncoder
from telecine.manifests.specs import CaptionSpec, EmbedSpec, ScoreSpec, VaeSpec


class RunsOn(StrEnum):
    """What a worker with the model is given."""

    CPU = "cpu"  # a core; small enough that many run side by side
    DEVICE = "device"  # a GPU where the cluster has any
    SERVER = "server"  # an address, a key and a number of requests at once


def unchanged(named: str) -> str:
    return named


@dataclass(frozen=True, kw_only=True)
class Kind:
    rests: tuple[str, ...] = ()  # how REST is described, as "FOLDER"; none: the name stands alone
    options: frozenset[str] = frozenset()  # keys of the spec's table that it heeds; others: refused
    runs_on: RunsOn = RunsOn.DEVICE
    absolute: Callable[[str], str] = unchanged  # NAME:REST so that it holds in any working folder

    def forms(self, name: str) -> list[str]:
        """As help and messages show it."""
        return [f"{name}:{rest}" for rest in self.rests] or [name]


@dataclass(frozen=True, kw_only=True)
class EncoderKind(Kind):
    """`make`: of a spec and a torch device (cpu, cuda, ...). Loads no weights yet."""

    make: Callable[[VaeSpec, str], VideoEncoder]


@dataclass(frozen=True, kw_only=True)
class CaptionerKind(Kind):
    """`weights_of`: NAME:REST to the digest of the model's files, where it has any.

    Where there is one, the spec that `make` gets holds the digest from when the model was chosen;
    another model than that must make no caption.
    """

    make: Callable[[CaptionSpec, ModelRuntime], Captioner]
    weights_of: Callable[[str], str] | None = None


@dataclass(frozen=True, kw_only=True)
class ScorerKind(Kind):
    """`weights_of`: as a captioner's."""

    make: Callable[[ScoreSpec, ModelRuntime], Scorer]
    weights_of: Callable[[str], str] | None = None


@dataclass(frozen=True, kw_only=True)
class TextKind(Kind):
    """`weights_of`: as a captioner's."""

    make: Callable[[EmbedSpec, ModelRuntime], TextEncoder]
    weights_of: Callable[[str], str] | None = None
