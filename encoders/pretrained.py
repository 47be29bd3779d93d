"""The transformers library: without its bars and remarks, its errors told as a user's mistakes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from telecine.infra.errors import UsageError
from telecine.infra.extras import load

QUOTED = 400  # characters of the library's message


def transformers(wanted_by: str) -> Any:
    """The library. Raises UsageError, with what wants it, where it is not installed."""
    from telecine.encoders.torchvision_ops import mend_torchvision

    mend_torchvision()  # its video processors import it
    return load("transformers", "caption", wanted_by)


@contextlib.contextmanager
def loading(library: Any, named: str) -> Iterator[None]:
    """Without bars and remarks. Raises UsageError for what the library says is wrong with it.

    What is remarkable of them (tensors missing, code that is not run) the caller has to refuse.
    """
    from safetensors import SafetensorError

    logging = library.utils.logging
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    except (
        OSError, RuntimeError, ValueError, TypeError, KeyError, ImportError, SafetensorError
    ) as error:  # fmt: skip
        why = " ".join(str(error).split())
        why = f"{why[:QUOTED]}…" if len(why) > QUOTED else why
        raise UsageError(f"{named} does not load: {why}") from error
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
