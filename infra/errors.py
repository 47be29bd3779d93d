"""Every error Telecine raises on purpose, split by what the caller does next.

TelecineError           print the message, no traceback, leave with `exit_code`
├── UsageError          the command, a spec or a dataset named is wrong: correct it        (2)
│   └── OutOfDeviceMemory    a GPU has too little memory for what the spec asks of it
├── StorageError        the object store or disk said no: credentials, bucket, space       (3)
│   ├── NotFound        there is no such object, bucket or folder
│   │   └── NoBucket         there is no such bucket, so nothing in it
│   ├── AccessDenied    the credentials in force may not do this
│   │   └── BadCredentials   they are missing, wrong or expired: nothing else would go better
│   ├── Changed         the object is no longer the version that was scanned
│   └── Unreadable      the store will not or cannot give this object, others it may
├── CommitError         a table commit failed; nothing of it is visible: run again         (4)
├── ClusterError        Ray could not start, join or keep going                            (5)
├── CheckFailed         what was made is not good: a build's gate, a damaged shard         (6)
└── ServerError         a captioning server said no: out of reach, refuses the key,
                        has no such model                                                  (7)

MediaError              one source or clip is bad: becomes a row, never ends the run
"""

from __future__ import annotations

from enum import StrEnum


class TelecineError(Exception):
    """A failure with a message for the user: what was given, what was expected, what to do."""

    exit_code = 1


class UsageError(TelecineError):
    exit_code = 2


class OutOfDeviceMemory(UsageError):
    pass


class StorageError(TelecineError):
    exit_code = 3


class NotFound(StorageError):
    pass


class NoBucket(NotFound):
    pass


class AccessDenied(StorageError):
    pass


class BadCredentials(AccessDenied):
    pass


class Unreadable(StorageError):
    pass


class Changed(StorageError):
    pass


def concerns_one_object(error: StorageError) -> bool:
    """Whether the error costs one source, or the store as a whole is out of reach."""
    one = isinstance(error, (NotFound, AccessDenied, Changed, Unreadable))
    return one and not isinstance(error, BadCredentials)


class CommitError(TelecineError):
    exit_code = 4


class ClusterError(TelecineError):
    exit_code = 5


class CheckFailed(TelecineError):
    exit_code = 6


class ServerError(TelecineError):
    exit_code = 7


class Reason(StrEnum):
    """Why footage is not in a build. A closed set: tables, reports and docs use these words."""

    # A source that cannot be used: `sources.reason`
    EMPTY = "empty"  # zero bytes
    UNRECOGNISED = "unrecognised"  # no media format we open (scripts and playlists included)
    NO_VIDEO = "no_video"  # media without a video stream: audio, subtitles
    NO_FRAMES = "no_frames"  # a video stream that yields no frame: an init segment, a cut file
    CORRUPT = "corrupt"  # the demuxer or decoder refuses it
    ENCRYPTED = "encrypted"  # protected samples
    UNSUPPORTED = "unsupported"  # a codec, pixel format or animation we do not decode
    TOO_LARGE = "too_large"  # more pixels, frames or seconds than the spec allows
    HDR = "hdr"  # PQ or HLG where the spec says `hdr = "reject"`; of a span too
    UNREADABLE = "unreadable"  # vanished, changed or forbidden while it was read

    # A span of frames left out by the scan: `sources.dropped[].reason`
    TOO_SHORT = "too_short"  # shorter than `min_seconds`
    BLACK = "black"  # black throughout
    FROZEN = "frozen"  # not one frame differs from the one before
    TRANSITION = "transition"  # a dissolve or fade: two shots at once

    # A clip left out of a build: `samples.reason`
    NO_BUCKET = "no_bucket"  # smaller or shorter than the smallest rung
    TOO_SMALL = "too_small"  # smaller than the build's `vae.short_side`: nothing is enlarged
    DAMAGED = "damaged"  # some of its frames are corrupt, and the spec says damaged = "drop"
    SOURCE_MISSING = "source_missing"  # the footage is gone
    SOURCE_CHANGED = "source_changed"  # the object was replaced since its scan
    FRAMES_MISMATCH = "frames_mismatch"  # the span no longer decodes to the frames the scan saw
    UNDECODABLE = "undecodable"  # the decoder refuses the span
    NOT_FINITE = "not_finite"  # the encoder returned NaN or infinity
    TRACK_MISSING = "track_missing"  # a required track is not there, or is none that can be used
    TRACK_GAP = "track_gap"  # a required track does not cover all of its frames

    # Any worker, after a retry
    CRASHED = "crashed"  # its process died
    OUT_OF_MEMORY = "out_of_memory"  # its process was killed for memory
    TIMEOUT = "timeout"  # it came to no further frame for minutes
    INTERNAL = "internal"  # an exception of our own code: a bug to report, no fault of the footage


# What may have been the machine's fault: the next runs try again, so many times in all.
PASSING = (Reason.CRASHED, Reason.OUT_OF_MEMORY, Reason.TIMEOUT)
MOST_TRIES = 3


def is_unfinished(reason: str, tries: int) -> bool:
    """Whether what was rejected for this reason is tried again without being asked."""
    return reason in PASSING and tries < MOST_TRIES


class MediaError(Exception):
    """One source or clip cannot be used. Caught once per step and kept as a row."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[MediaError], tuple[Reason, str]]:
        return MediaError, (self.reason, self.detail)
