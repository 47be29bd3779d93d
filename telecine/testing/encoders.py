"""What every video encoder promises (`telecine.encoders.video.interface.VideoEncoder`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np

from telecine.encoders.frames import FrameBlock, Latents, Pixels
from telecine.encoders.video.interface import VideoEncoder
from telecine.testing.checks import check_identity, refused
from telecine.testing.media import BT601, cut, head, noise, smooth

Make: TypeAlias = Callable[[], VideoEncoder]


def frame_counts(encoder: VideoEncoder) -> tuple[int, ...]:
    """The first valid ones: of one latent frame, and two that are longer."""
    counts = sorted({encoder.valid_frames(n) for n in range(1, 26)})
    return (*counts[:2], counts[2] if len(counts) > 2 else counts[-1])


def encode(encoder: VideoEncoder, clip: FrameBlock) -> Latents:
    frames = clip.shape[0]
    return encoder.encode(cut(clip, encoder.block_sizes(frames)), frames)


def decode(encoder: VideoEncoder, latents: Latents) -> Pixels:
    return np.concatenate(list(encoder.decode(latents)))


class EncoderContract:
    """Derive a class from it, named Test…, with a fixture `make`.

    Pictures are a few latents wide: a model that takes no small ones does not pass.
    """

    def same(self, encoder: VideoEncoder, a: Latents, b: Latents) -> bool:
        """Byte for byte; say otherwise where a library rounds by how much it is given at once."""
        return a.tobytes() == b.tobytes()

    def test_shapes_are_as_announced(self, make: Make) -> None:
        encoder = make()
        side = encoder.spatial_stride
        sizes = [(2 * side, 2 * side), (6 * side, 10 * side), (4 * side, 2 * side)]
        for frames, (height, width) in zip(frame_counts(encoder), sizes, strict=True):
            latents = encode(encoder, smooth(frames, height, width))
            assert latents.dtype == np.float16
            assert latents.shape == encoder.latent_shape(frames, height, width)
            stored = encoder.channels * (2 if encoder.posterior == "moments" else 1)
            assert latents.shape[0] == stored
            assert latents.shape[1] == 1 + (frames - 1) // encoder.temporal_stride
            assert (height, width) == (side * latents.shape[2], side * latents.shape[3])
            assert decode(encoder, latents).shape == (frames, height, width, 3)

    def test_there_are_as_many_constants_as_channels(self, make: Make) -> None:
        encoder = make()
        assert len(encoder.latents_std) == len(encoder.latents_mean)
        assert len(encoder.latents_std) > 0
        assert len(encoder.latents_std) % encoder.channels == 0
        assert min(encoder.latents_std) > 0

    def test_valid_frames_are_the_most_that_fit(self, make: Make) -> None:
        encoder = make()
        step = frame_counts(encoder)[1] - 1
        assert step % encoder.temporal_stride == 0
        assert [encoder.valid_frames(n) for n in (-1, 0, 1)] == [0, 0, 1]
        for available in range(1, 6 * step):
            frames = encoder.valid_frames(available)
            assert available - step < frames <= available
            assert encoder.valid_frames(frames) == frames
            assert sum(encoder.block_sizes(frames)) == frames

    def test_the_first_latent_is_that_of_the_first_frame_as_an_image(self, make: Make) -> None:
        encoder = make()
        side = encoder.spatial_stride
        clip = smooth(frame_counts(encoder)[-1], 6 * side, 8 * side)
        image = encode(encoder, head(clip, 1))
        assert self.same(encoder, image, encode(encoder, clip)[:, :1]) == encoder.causal

    def test_later_frames_do_not_change_earlier_latents(self, make: Make) -> None:
        encoder = make()
        side, counts = encoder.spatial_stride, frame_counts(encoder)
        clip, other = (smooth(counts[-1], 6 * side, 8 * side, seed=seed) for seed in (1, 2))
        before = encode(encoder, clip)
        for kept in counts[:-1]:
            y, cb, cr = (
                np.concatenate([a[:kept], b[kept:]])
                for a, b in zip(clip.planes, other.planes, strict=True)
            )
            after = encode(encoder, FrameBlock((y, cb, cr), clip.colors))
            known = 1 + (kept - 1) // encoder.temporal_stride
            assert self.same(encoder, before[:, :known], after[:, :known]) or not encoder.causal
            assert not self.same(encoder, before[:, known:], after[:, known:])

    def test_latents_are_the_same_bytes_however_the_planes_lie_in_memory(self, make: Make) -> None:
        encoder = make()
        side = encoder.spatial_stride
        clip = noise(frame_counts(encoder)[-1], 6 * side, 8 * side)
        y, cb, cr = (
            np.pad(p, ((1, 0), (3, 5), (7, 9)))[1:, 3:-5, 7:-9].astype(np.uint8)
            for p in clip.planes
        )
        padded = FrameBlock((y, cb, cr), clip.colors)
        assert encode(encoder, padded).tobytes() == encode(encoder, clip).tobytes()

    def test_wrong_blocks_are_refused(self, make: Make) -> None:
        encoder = make()
        frames, side = frame_counts(encoder)[-1], encoder.spatial_stride
        clip = smooth(frames + 1, 4 * side, 4 * side)
        sizes = list(encoder.block_sizes(frames))
        wrong = [[sizes[0] + 1], sizes[:-1], [*sizes[:-1], sizes[-1] - 1], []]
        for given in wrong:
            with refused(ValueError, "block", "clip"):
                encoder.encode(cut(clip, given), frames)
        with refused(ValueError, "more"):
            encoder.encode(iter([head(clip, 1), head(clip, 1)]), 1)

    def test_frame_counts_that_are_not_valid_are_refused(self, make: Make) -> None:
        encoder = make()
        side = encoder.spatial_stride
        with refused(ValueError, "0 frames"):
            list(encoder.block_sizes(0))
        wrong = next((n for n in range(2, 26) if encoder.valid_frames(n) != n), None)
        if wrong is not None:
            with refused(ValueError, f"{wrong} frames"):
                encoder.encode(cut(smooth(wrong, 4 * side, 4 * side), [wrong]), wrong)

    def test_a_picture_off_the_grid_is_refused(self, make: Make) -> None:
        encoder = make()
        side = encoder.spatial_stride
        if side > 4:
            with refused(ValueError, f"{4 * side + 4}×{4 * side}"):
                encode(encoder, smooth(1, 4 * side, 4 * side + 4))
        with refused(ValueError, "multiples"):
            encoder.latent_shape(1, 0, 4 * side)

    def test_blocks_of_another_size_or_colour_are_refused(self, make: Make) -> None:
        encoder = make()
        frames = next(n for n in range(2, 400) if len(list(_sizes(encoder, n))) > 1)
        first, second, *_ = encoder.block_sizes(frames)
        a = 4 * encoder.spatial_stride
        for other in (
            smooth(second, a, a + 16),
            smooth(second, a, a, (1, 1)),
            smooth(second, a, a, colors=BT601),
        ):
            with refused(ValueError, "block 1"):
                encoder.encode([smooth(first, a, a), other], frames)

    def test_the_identity_tells_what_gates_measure_latents_by(self, make: Make) -> None:
        encoder = make()
        identity = encoder.identity()
        assert identity.get("posterior", "mean") == encoder.posterior
        assert identity.get("normalise", True) == encoder.normalised
        if not encoder.normalised:
            assert identity["latents_mean"] == list(encoder.latents_mean)
            assert identity["latents_std"] == list(encoder.latents_std)

    def test_the_fingerprint_is_that_of_the_identity(self, make: Make) -> None:
        check_identity(make(), make())


def _sizes(encoder: VideoEncoder, frames: int) -> Iterator[int]:
    return encoder.block_sizes(frames) if encoder.valid_frames(frames) == frames else iter(())
