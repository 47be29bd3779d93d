"""Opens hostile media: content decides what a file is, and a file opens nothing but itself.

FFmpeg is given a file object, never a name, real containers only, and no way to open anything
further. Pillow reads stills. Sizes are bounded from the header before memory is taken, and again
by the decoder.
"""

from __future__ import annotations

import math
from codecs import getincrementaldecoder
from collections import deque
from collections.abc import Generator, Iterator
from fractions import Fraction
from typing import Any, BinaryIO

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from telecine.infra.errors import MediaError, Reason
from telecine.infra.pulse import beat
from telecine.manifests.specs import PixelSpec, ScanSpec
from telecine.pipeline.media.alpha import BesideBlocks, Opacities, has_beside_blocks
from telecine.pipeline.media.facts import MediaFacts, Picture
from telecine.pipeline.media.faults.blame import words
from telecine.pipeline.media.faults.damage import Damage
from telecine.pipeline.media.faults.protection import names_protection, refuse_protected
from telecine.pipeline.media.faults.sizes import check_size
from telecine.pipeline.media.filters import cropped, deinterlaced, woven
from telecine.pipeline.media.pixels import frame_rgb
from telecine.pipeline.media.stills.gif import LocalPalettes
from telecine.pipeline.media.stills.heif import (
    has_opacity_track,
    heif_picture,
    is_heif,
    is_photograph,
)
from telecine.pipeline.media.stills.images import HEAD_BYTES, image_format, open_picture
from telecine.pipeline.media.stills.raw import refuse_raw
from telecine.pipeline.media.timing import rising
from telecine.pipeline.media.tracks.boxes import TrackNotes, track_notes
from telecine.pipeline.media.tracks.streams import (
    FactsReader,
    Tags,
    best_first,
    counted_frames,
    footage,
    header_frames,
    opacity_beside,
    tags_of,
    take_named_colors,
)

# Real containers and elementary streams. No script, playlist, device or pattern demuxer.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,live_flv,kux,mpegts,mpeg,mpegvideo,m4v,h261,"
    "h263,h264,hevc,vvc,av1,obu,ivf,evc,mjpeg,mjpeg_2000,dirac,vc1,cavsvideo,avs2,avs3,dnxhd,"
    "yuv4mpegpipe,asf,ogg,mxf,gxf,dv,gif,rm,nut,wtv,dhav,mpjpeg,nsv,nuv,"
    "mp3,wav,w64,flac,aac,ac3,eac3,aiff,amr,caf,ape,dts,truehd,tta,wv,au"
)
BUFFER_BYTES = 1 << 16  # decoding costs the same with 32 KiB to 4 MiB; small ones overread least
PEEKED_FRAMES = 5  # a telecined source may begin with progressive frames
MAX_READ_ERRORS = 16  # of the demuxer without a packet in between
MAX_RATE = 240
_MEDIA_MAGIC = (
    b"\x1aE\xdf\xa3", b"RIFF", b"FLV", b"OggS", b"0&\xb2u", b"\x06\x0e+4", b"\0\0\0\x01",
    b"\0\0\x01", b"GIF8", b".RMF", b"\x1f\x07\0",
)  # fmt: skip
# What protection looks like to a decoder that knows nothing of it.
_MAY_BE_PROTECTED = (
    Reason.CORRUPT, Reason.NO_FRAMES, Reason.UNSUPPORTED, Reason.UNRECOGNISED,
)  # fmt: skip
_BOXES = (b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"wide", b"free", b"skip", b"pnot", b"sidx")


def open_media(
    file: BinaryIO, scan: ScanSpec, pixels: PixelSpec, threads: int = 1
) -> Video | Picture:
    """A video or a still image, whatever the file is called.

    HDR is refused here where it is a still; which parts of a video are HDR its frames say.
    Raises MediaError with the reason; errors of the file object itself (the store's) pass through.
    """
    file.seek(0)
    head = file.read(HEAD_BYTES)
    if not head:
        raise MediaError(Reason.EMPTY, "zero bytes")
    if _is_text(head):
        raise MediaError(
            Reason.UNRECOGNISED,
            f"text, not media; it begins with {head[:40].decode(errors='replace')!r}",
        )
    refuse_raw(file)
    still = image_format(file)
    if still:
        picture = open_picture(file, still, scan.max_pixels)
        if picture is not None:
            _accept_light(picture.facts, pixels)
            return picture
    if is_photograph(file, head):
        picture = heif_picture(file, scan.max_pixels)
        if picture is not None:
            _accept_light(picture.facts, pixels)
            return picture
    video = _open_video(file, head, scan, threads)
    if not is_heif(head) or video.only_frame is None:
        return video
    with video:
        _accept_light(video.facts, pixels)
        rgb = frame_rgb(next(video.frames()), video.facts)
        return heif_picture(file, scan.max_pixels) or Picture(video.facts, rgb)


def _accept_light(facts: MediaFacts, pixels: PixelSpec) -> None:
    if pixels.hdr == "reject" and facts.color_transfer != "sdr":
        raise hdr_refused(facts.color_transfer)


def hdr_refused(transfer: str) -> MediaError:
    return MediaError(Reason.HDR, f'{transfer} footage, and the spec says hdr = "reject"')


def _is_text(head: bytes) -> bool:
    """Scripts and playlists name other files. No media begins with kilobytes of plain text."""
    if head.startswith(b"YUV4MPEG2 "):
        return False
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) and len(head) > 3 and 0 in head[2:4]:
        return True
    if any(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in head):
        return False
    try:
        getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut
    except UnicodeDecodeError:
        return False
    return True


def _open_video(file: BinaryIO, head: bytes, scan: ScanSpec, threads: int) -> Video:
    """Raises MediaError ENCRYPTED where the file says so, at once or of what cannot be decoded."""
    refuse_protected(file)
    try:
        return _best_video(file, head, scan, threads)
    except MediaError as error:
        if error.reason in _MAY_BE_PROTECTED and names_protection(file):
            raise MediaError(Reason.ENCRYPTED, f"protected samples ({error.detail})") from error
        raise


def _best_video(file: BinaryIO, head: bytes, scan: ScanSpec, threads: int) -> Video:
    """The best stream that yields a frame."""
    failure: MediaError | None = None
    transparent = has_opacity_track(file, head)
    for container, stream in _by_stream(file, head, scan):
        opacity = opacity_beside(container, stream) if transparent else None
        try:
            notes = _notes_of(file, container, stream)
            return Video(container, stream, scan, threads, notes, opacity)
        except MediaError as error:
            container.close()
            if error.reason not in (Reason.CORRUPT, Reason.NO_FRAMES):
                raise
            failure = failure or error
    raise failure or MediaError(Reason.NO_VIDEO, "no video stream")


def _notes_of(file: BinaryIO, container: InputContainer, stream: VideoStream) -> TrackNotes:
    at, ordinal = file.tell(), list(container.streams.video).index(stream)
    try:
        return track_notes(file, container.format.name, stream.id, ordinal)
    finally:
        file.seek(at)  # FFmpeg reads on from there


def _by_stream(
    file: BinaryIO, head: bytes, scan: ScanSpec
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Streams that may be the footage, the likeliest first, each in a container opened for it."""
    container = _open_container(file, head, scan)
    try:
        streams = footage(container)
        counts = header_frames(streams)
        fresh = counts is not None
        order = best_first(streams, counts or counted_frames(container, streams))
    except MediaError:
        container.close()
        raise
    for index in order:
        if not fresh:
            container.close()
            container = _open_container(file, head, scan)
        fresh = False
        yield container, next(s for s in container.streams.video if s.index == index)


def _open_container(file: BinaryIO, head: bytes, scan: ScanSpec) -> InputContainer:
    file.seek(0)
    try:
        return av.open(
            _Nameless(file),
            "r",
            metadata_errors="replace",
            buffer_size=BUFFER_BYTES,
            io_open=_refuse_to_open,
            options={"format_whitelist": CONTAINERS, "max_pixels": str(scan.max_pixels)},
        )
    except (FFmpegError, UnicodeError) as error:
        known = head.startswith(_MEDIA_MAGIC) or head[4:8] in _BOXES
        reason = Reason.CORRUPT if known else Reason.UNRECOGNISED
        raise MediaError(reason, words(error)) from error


class _Nameless:
    """Only what FFmpeg needs of a file: bytes by position. A name would end up in its messages."""

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


def _refuse_to_open(url: str, flags: int, options: object) -> BinaryIO:
    raise PermissionError(f"media may not open anything else, asked for {url!r}")


class Video:
    """One stream of frames, decoded on demand. Close it, or use it as a context manager."""

    def __init__(
        self,
        container: InputContainer,
        stream: VideoStream,
        scan: ScanSpec,
        threads: int,
        notes: TrackNotes,
        opacity: VideoStream | None = None,
    ) -> None:
        """`opacity` is the stream of the picture's transparency, if it has one."""
        blocks = has_beside_blocks(stream)
        self._beside = BesideBlocks(stream, scan.max_pixels) if blocks else None
        self._opacity, self._opacities = opacity, Opacities(in_blocks=blocks)
        self._container, self._stream, self._scan = container, stream, scan
        self.decode_errors = 0
        self._damage = Damage()
        self._complaint = ""
        self.time_base: Fraction = stream.time_base or Fraction(1, 1)
        self._written = LocalPalettes() if stream.codec_context.name == "gif" else None
        self._most_ticks = math.floor(scan.max_source_seconds / self.time_base)
        context = stream.codec_context
        named = take_named_colors(container, stream)
        check_size(context.width, context.height, scan.max_pixels)
        context.thread_count = threads
        if opacity is not None:
            opacity.codec_context.thread_count = 1
        context.options = {"max_pixels": str(scan.max_pixels)}
        self._notes = notes
        self.interlaced = False  # any frame so far, or its header
        self._tags: Tags | None = None  # of the latest key frame
        self._aspect: Fraction | None = None  # of the pixels of the latest key frame and the first
        self._first_aspect: Fraction | None = None
        self._raw = self._whole(self._decode())
        self._peeked: deque[VideoFrame] = deque()
        for frame in self._raw:
            self._peeked.append(frame)
            if len(self._peeked) == PEEKED_FRAMES:
                break
        if not self._peeked:
            self._raise_no_frames()
        self._reader = FactsReader(container, stream, named, notes, self._peeked)
        self.facts = self._reader.of(self._peeked[0])
        self.interlaced = self.facts.interlaced
        check_size(self.facts.width, self.facts.height, scan.max_pixels)

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._raw.close()
        self._peeked.clear()
        self._container.close()

    @property
    def only_frame(self) -> VideoFrame | None:
        """The frame of a video that has no other."""
        return self._peeked[0] if len(self._peeked) == 1 else None

    def frames(self) -> Iterator[VideoFrame]:
        """All frames in output order, or those from the last `seek` on.

        `pts` counts ticks of `time_base` and may be None; a stamp that alone breaks the order is
        mended (timing.rising). Interlaced footage is deinterlaced: one frame per frame, with its
        stamp. What the container cuts off is not there. Packets that the decoder refuses are
        counted and skipped.
        """
        frames = self._all()
        if self._opacity is not None or self._beside is not None:
            frames = self._opacities.joined(frames, self.time_base)
        whole = self._bounded(rising(deinterlaced(frames)))
        margins = self._notes.margins
        return cropped(whole, self._notes.size, margins) if any(margins) else whole

    def facts_of(self, frame: VideoFrame) -> MediaFacts:
        """Those of one of its frames: a stream may change them midway. Cheap where nothing did."""
        return self._reader.of(frame)

    def is_damaged(self, frame: VideoFrame) -> bool:
        """Whether something of one of its frames was lost, or of what it refers to (damage.py)."""
        return self._damage.has(frame) or self._opacities.is_damaged(frame)

    def seek(self, pts: int, shown_from: int | None = None) -> bool:
        """Makes `frames` begin at a key frame, near and rarely after `pts`; False if it cannot.

        Before `shown_from` frames that no other refers to need not come: they are not decoded.

        Whoever needs the frame at `pts` checks the first stamp: containers index decode times, and
        some seek to where a frame is not the first to be shown.
        """
        self._peeked.clear()
        self._opacities.clear()
        if self._beside is not None:
            self._beside.flush()
        self._raw.close()
        try:
            self._container.seek(pts, stream=self._stream)
        except FFmpegError:
            return False
        self._raw = self._whole(self._from_key_frame(shown_from))
        return True

    def _all(self) -> Iterator[VideoFrame]:
        while self._peeked:
            yield self._peeked.popleft()
        yield from self._raw

    def _whole(self, frames: Generator[VideoFrame]) -> Generator[VideoFrame]:
        return woven(frames) if self._stream.codec_context.name == "hevc" else frames

    def _from_key_frame(self, shown_from: int | None) -> Generator[VideoFrame]:
        """What comes before the key frame in output order refers to frames that were not read."""
        frames = self._decode(shown_from)
        for frame in frames:
            if frame.key_frame:
                yield frame
                break
        yield from frames

    def _decode(self, shown_from: int | None = None) -> Generator[VideoFrame]:
        context = self._stream.codec_context
        for packet in self._packets():
            if shown_from is not None and packet is not None:
                early = packet.pts is not None and packet.pts < shown_from
                context.skip_frame = "NONREF" if early else "DEFAULT"
            for frame in self._frames_of(packet):
                beat()
                self._damage.shown(frame)
                yield self._noted(frame)

    def _frames_of(self, packet: Any) -> list[VideoFrame]:
        """However many packets are refused: what comes after them may be whole."""
        try:
            frames = self._stream.decode(packet)
        except (FFmpegError, UnicodeError) as error:
            self._complain(error)
            self._damage.lost(packet)
            return []
        if packet is not None:
            self._damage.read(packet)
        return frames

    def _noted(self, frame: VideoFrame) -> VideoFrame:
        """Gives the frame what belongs to it: decoders are ahead of their frames.

        Colours change at key frames, but those that wait for their turn (of HEVC, where they name
        none) come with the decoder's newest. The shape of pixels PyAV gives of the decoder alone:
        a frame is marked with it where it is not the first frame's.
        """
        self.interlaced = self.interlaced or frame.interlaced_frame
        if frame.key_frame:
            self._tags = tags_of(frame)
            self._aspect = self._stream.codec_context.sample_aspect_ratio or Fraction(0)
            self._first_aspect = self._aspect if self._first_aspect is None else self._first_aspect
        elif self._tags is not None and tags_of(frame) != self._tags:
            frame.colorspace, frame.color_range, frame.color_trc, frame.color_primaries = self._tags
        if self._aspect != self._first_aspect:
            frame.opaque = self._aspect
        return frame

    def _packets(self) -> Iterator[Any]:
        """Packets of the stream; after an error of the demuxer reading goes on while any come.

        The last one is empty, or None: what the decoder still holds is to be given out.
        """
        errors = 0
        while errors < MAX_READ_ERRORS:
            try:
                for packet in self._container.demux(*self._streams()):
                    if self._opacity and packet.stream_index == self._opacity.index:
                        self._note_opacity(packet)
                        continue
                    if packet.has_sidedata("encryption_info"):
                        raise MediaError(Reason.ENCRYPTED, "protected samples")
                    if self._beside is not None:
                        self._note_opacity(packet)
                    errors = 0
                    yield self._written(packet) if self._written else packet
            except FFmpegError as error:
                self._complain(error)
                self._damage.lost(None)
                errors += 1
            else:
                return
        yield None

    def _streams(self) -> list[VideoStream]:
        return [self._stream] if self._opacity is None else [self._stream, self._opacity]

    def _note_opacity(self, packet: Any) -> None:
        tick, refused = packet.stream.time_base, False
        try:
            frames = self._beside.frames(packet) if self._beside else packet.decode()
        except FFmpegError as error:
            self._complain(error)
            frames, refused = [], True
        for frame in frames or []:
            if frame.pts is not None:
                self._opacities.add(frame.pts * tick, frame)
        if packet.pts is not None and (refused or (self._beside and frames == [])):
            self._opacities.lose(packet.pts * tick)

    def _complain(self, error: Exception) -> None:
        self.decode_errors += 1
        self._complaint = self._complaint or words(error)

    def _bounded(self, frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
        """Raises MediaError TOO_LARGE; not for a lone far stamp, which is mended by now."""
        limit, first, late = self._scan.max_source_seconds, math.inf, False
        for shown, frame in enumerate(frames, start=1):
            if frame.pts is not None:
                first = min(first, frame.pts)
                late = frame.pts - first > self._most_ticks
            if late or shown > limit * MAX_RATE:
                raise MediaError(Reason.TOO_LARGE, f"more than {limit} s of footage in one source")
            yield frame

    def _raise_no_frames(self) -> None:
        if self.decode_errors:
            raise MediaError(Reason.CORRUPT, f"no packet could be decoded: {self._complaint}")
        raise MediaError(Reason.NO_FRAMES, "a video stream without a single frame")
