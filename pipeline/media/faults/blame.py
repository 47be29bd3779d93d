"""Whose fault an exception is: the footage's, the machine's, or our own code's."""

from __future__ import annotations

from av.error import FFmpegError

from telecine.infra.bugs import failure
from telecine.infra.errors import MediaError, Reason


def blamed(error: Exception) -> MediaError:
    """The exception as what it says of the source that was being read.

    Broken footage is what FFmpeg says it is, or this package, which knows by name what Pillow's
    readers raise (images.py). Whatever else comes up while a source is read is a mistake of ours,
    INTERNAL: no footage may make us raise it.
    """
    if isinstance(error, MediaError):
        return error
    if isinstance(error, FFmpegError) and not isinstance(error, MemoryError):
        return MediaError(Reason.CORRUPT, words(error))
    return MediaError(*failure(error))


def words(error: BaseException) -> str:
    """The decoder's own words, without number and file name."""
    return str(getattr(error, "strerror", None) or error) or type(error).__name__
