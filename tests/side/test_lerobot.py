"""A LeRobot root as a source: episodes are clips, cameras are apart, rows are tracks by time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support import inline
from tests.support.lab import Lab
from tests.support.lerobot import write_data, write_root
from tests.support.samples import members
from tests.support.squares import SPEED, off, square

LENGTHS = (30, 36)  # frames
TRACKS = {
    "place": {"columns": ["observation.state"], "rule": "nearest"},
    "action": {"columns": ["action"], "rule": "last"},
}


def rows(late: int = 0) -> list[dict[str, list[object]]]:
    places = [[SPEED * (k - late) for k in range(n)] for n in LENGTHS]
    return [
        {"observation.state": [[float(x), 0.5] for x in each], "action": [float(SPEED)] * len(each)}
        for each in places
    ]


def test_episodes_are_clips_with_their_own_rows(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    pictures = [[square(SPEED * k) for k in range(n)] for n in LENGTHS]
    darker = [[(y - 9, cb, cr) for y, cb, cr in episode] for episode in pictures]
    cameras = {"observation.images.left": pictures, "observation.images.right": darker}
    write_root(lab.footage, cameras, rows(late=1))
    done = inline.ingest(str(lab.footage), str(lab.dataset), {"tracks": TRACKS})
    assert (done.scan.scanned, done.scan.rejected, done.scan.clips) == (2, 0, 4)
    found = list(members(lab).values())
    assert sorted(one["json"]["native_num_frames"] for one in found) == [30, 30, 36, 36]
    cameras_seen = {Path(one["json"]["source"]["uri"]).parts[-3] for one in found}
    assert cameras_seen == set(cameras)
    for one in found:
        assert one["place.npy"].shape == (one["json"]["num_frames"], 2)
        assert one["place.npy"][0].tolist() == [-SPEED, 0.5]  # its own episode's first row
        assert (one["action.npy"] == SPEED).all()
        assert one["json"]["tracks"]["place"]["coverage"] == 1
        assert off(one) > 2

    write_data(lab.footage, rows())
    again = inline.ingest(str(lab.footage), str(lab.dataset))
    assert (again.scan.scanned, again.build.frames_encoded, again.build.samples_copied) == (0, 0, 4)
    for one in members(lab).values():
        assert off(one) < 1
        assert np.diff(one["place.npy"][:, 0]) == pytest.approx(SPEED)
