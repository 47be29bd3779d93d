"""CoCa as a captioner: a CLIP of open_clip with a text decoder (Yu et al. 2022, arXiv:2205.01917).

    a view's stills ─▶ encoder ─┬─ 256 tokens ─▶ decoder ─▶ a sentence of each still
                                └─ embedding ──▶ mean ──▶ the sentence nearest to it is the view's

CoCa never saw more than one picture at once, so each still is captioned by itself; being a CLIP,
it can say which caption fits the view as a whole.

open_clip's own `generate()` does not run beside transformers 5, which dropped the beam search it is
built on. `spoken` decodes without it: the likeliest token at temperature 0, else drawn by numbers
that hang on the still's bytes alone. Which other stills are in the batch could change a caption
only where rounding decides between two tokens; on a CPU, of 96 captions in float32 and in bfloat16
not one changed between batches of 1, 7, 32 and 96.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from telecine.encoders.caption.describer import ModelCaptioner
from telecine.encoders.caption.guards import Said
from telecine.encoders.caption.interface import Outcome
from telecine.encoders.caption.windows import View
from telecine.encoders.runtime import ModelRuntime
from telecine.encoders.score.files import known_architecture
from telecine.encoders.score.load import Still
from telecine.encoders.score.names import library
from telecine.encoders.score.openclip import OpenClip, Vector, unit_rows
from telecine.infra.errors import UsageError
from telecine.manifests.fingerprint import JsonValue
from telecine.manifests.specs import CaptionSpec

if TYPE_CHECKING:
    import torch

VERSION = 1  # rises when any caption would come out differently
FRAMES = 3
MAX_TOKENS = 75  # the end among them: what the published models' context of 76 leaves
BATCH = 32  # stills at once
DECODER = "multimodal_cfg"  # what the architecture of a CoCa has and that of a CLIP has not

# (logits [n, vocabulary], which rows of the batch these are) → a token each
Choose = Callable[["torch.Tensor", Sequence[int]], Sequence[int]]


def load_coca(spec: CaptionSpec, runtime: ModelRuntime) -> ModelCaptioner:
    """Loads no weights before they are needed.

    Raises UsageError where the spec asks of it what it cannot do, or the model is known not to
    caption.
    """
    given = [key for key in ("prompt", "merge_prompt") if getattr(spec, key) is not None]
    if given:
        raise UsageError(
            f"[caption] {', '.join(given)}: {spec.captioner} takes no prompt, it says what it was "
            "trained to; leave it out, or use a captioner vlm:... or openai:..."
        )
    architecture = known_architecture(spec.captioner)
    if architecture is not None and DECODER not in architecture:
        raise _cannot_caption(spec.captioner)
    return ModelCaptioner(
        CocaDescriber(spec, runtime), spec, prompt="", frames=FRAMES, max_tokens=MAX_TOKENS
    )


def _cannot_caption(named: str) -> UsageError:
    return UsageError(
        f"{named} has no text decoder, so it cannot caption: name a CoCa, as "
        "openclip:coca_ViT-L-14; a CLIP without one can score (telecine score --scorer)"
    )


@dataclass(frozen=True, slots=True)
class _Candidate:
    said: Said
    seen: Vector  # embedding of the still that it is said of


class CocaDescriber:
    """`Describer` over a CoCa. Not to be shared by threads."""

    name = "openclip"

    def __init__(self, spec: CaptionSpec, runtime: ModelRuntime) -> None:
        self._model = OpenClip(
            spec.captioner,
            spec.dtype,
            weights=spec.weights,
            device=runtime.device,
            batch=runtime.batch or BATCH,
            makes="captions",
        )
        self._temperature = spec.temperature
        self._max_tokens = spec.max_tokens or MAX_TOKENS

    def identity(self) -> dict[str, JsonValue]:
        return {"version": VERSION, "model": self._model.identity(), "choice": "nearest-to-mean"}

    def describe(self, views: Sequence[View]) -> list[Said]:
        stills = [jpeg for view in views for _, jpeg in view.stills]
        answers = iter(self._model.over_stills(stills, self._captioned))
        told = [[next(answers) for _ in view.stills] for view in views]
        texts = [text for some in told for text in _rivals(some)]
        rows = iter(self._model.embed_texts(texts) if texts else ())
        return [_chosen(some, [next(rows) for _ in _rivals(some)]) for some in told]

    def _captioned(self, stills: Sequence[Still]) -> list[_Candidate | str]:
        import torch

        net, tokenizer = self._decoder()
        encoded = net(self._model.pixels(stills))
        seen = unit_rows(encoded["image_features"])
        generators = [torch.Generator().manual_seed(_seed(still.jpeg)) for still in stills]
        answers = spoken(
            net,
            encoded["image_embs"],
            start=tokenizer.sot_token_id,
            end=tokenizer.eot_token_id,
            limit=min(self._max_tokens, net.context_length - 1),
            choose=_chooser(self._temperature, generators),
        )
        return [
            _Candidate(_said(tokenizer, tokens, tokenizer.eot_token_id), row)
            if tokens is not None and np.isfinite(row).all()
            else f"the model gives NaN or infinity in {self._model.dtype}"
            for tokens, row in zip(answers, seen, strict=True)
        ]

    def _decoder(self) -> tuple[Any, Any]:
        """The model and its tokenizer. Raises UsageError unless they are a CoCa's."""
        open_clip, loaded = library(), self._model.loaded
        if not isinstance(loaded.net, open_clip.CoCa):
            raise _cannot_caption(self._model.named)
        own = isinstance(loaded.tokenizer, open_clip.SimpleTokenizer)
        if not own or loaded.tokenizer.vocab_size != loaded.net.text.vocab_size:
            raise UsageError(
                f"{self._model.named} speaks in tokens other than open_clip's own, which are not "
                "turned into text here: name another CoCa, as openclip:coca_ViT-L-14"
            )
        return loaded.net, loaded.tokenizer


def _rivals(told: Sequence[_Candidate | str]) -> list[str]:
    """The texts of a view among which there is a choice."""
    texts = [one.said.text for one in told if isinstance(one, _Candidate) and one.said.text]
    return texts if len(texts) > 1 else []


def _chosen(told: Sequence[_Candidate | str], rows: Sequence[Vector]) -> Said:
    """The text nearest to the mean of the stills, by the texts' embeddings; the first of equals.

    A view of which one still has no answer has none.
    """
    sound = [one for one in told if isinstance(one, _Candidate)]
    if len(sound) < len(told) or not told:
        problems = (
            f"still {n} of {len(told)}: {p}" for n, p in enumerate(told, 1) if isinstance(p, str)
        )
        return Said(Outcome.FAILED, "", next(problems, "it has no stills"))
    speaking = [one for one in sound if one.said.text] or sound
    mean = np.mean([one.seen for one in sound], axis=0)
    return speaking[int(np.argmax([row @ mean for row in rows] or [0]))].said


# ── decoding ─────────────────────────────────────────────────────────────────────────────────────


def spoken(
    net: Any, pictures: torch.Tensor, *, start: int, end: int, limit: int, choose: Choose
) -> list[list[int] | None]:
    """Tokens that the decoder says of each picture [n, tokens, width], as far as `limit`.

    The last is `end`, unless the limit came first. None where it says nothing that is a number.
    """
    import torch

    rows: list[list[int] | None] = [[] for _ in pictures]
    live = list(range(len(rows)))
    for _ in range(limit):
        ids = torch.tensor([[start, *(rows[i] or ())] for i in live], device=pictures.device)
        given = {"image_latent": pictures, "image_embs": pictures}  # the former is not looked at
        logits = net(None, ids, output_labels=False, **given)["logits"][:, -1].float()
        # Padding, and a second beginning: the model was never taught to say them.
        logits[:, [start, net.pad_id]] = -torch.inf
        sound = logits.amax(-1).isfinite().tolist()
        going = []
        for place, (i, token) in enumerate(zip(live, choose(logits, live), strict=True)):
            row = rows[i]
            if not sound[place] or row is None:
                rows[i] = None
                continue
            row.append(token)
            if token != end:
                going.append(place)
        if not going:
            break
        if len(going) < len(live):
            live, pictures = [live[place] for place in going], pictures[going]
    return rows


def _chooser(temperature: float, generators: Sequence[torch.Generator]) -> Choose:
    import torch

    def likeliest(logits: torch.Tensor, _live: Sequence[int]) -> Sequence[int]:
        tokens: list[int] = logits.argmax(-1).tolist()
        return tokens

    def drawn(logits: torch.Tensor, live: Sequence[int]) -> Sequence[int]:
        """By each row's own numbers: a point on the line of probabilities laid end to end."""
        ends = (logits.double() / temperature).softmax(-1).cumsum(-1)
        numbers = [torch.rand((), generator=generators[i], dtype=torch.float64) for i in live]
        points = torch.stack(numbers).to(ends.device)[:, None] * ends[:, -1:]
        found = torch.searchsorted(ends, points, right=True).clamp_(max=ends.shape[1] - 1)
        tokens: list[int] = found[:, 0].tolist()
        return tokens

    return drawn if temperature > 0 else likeliest


def _seed(jpeg: bytes) -> int:
    return int.from_bytes(hashlib.sha256(jpeg).digest()[:8]) >> 1


def _said(tokenizer: Any, tokens: Iterable[int], end: int) -> Said:
    words = list(tokens)
    ended = words[-1:] == [end]
    text = tidied(tokenizer.decode(words[:-1] if ended else words))
    return Said(Outcome.OK if ended or not text else Outcome.TRUNCATED, text)


def tidied(text: str) -> str:
    """Without the spaces that the tokenizer leaves before signs: 'a man 's hat .'"""
    return re.sub(r" +(?=[.,:;!?%)]|'(?:s|t|re|ve|m|ll|d)\b)", "", text).strip()
