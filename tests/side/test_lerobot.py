"""A LeRobot root as a source: episodes are clips, cameras are apart, rows are tracks by time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from telecine.infra.store.storage import Storage
from telecine.pipeline.side.formats import UnusableTrack
from telecine.pipeline.side.lerobot import episodes_of, info_of
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


def test_footage_whose_episodes_could_not_be_read_is_scanned_when_they_can(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    write_root(lab.footage, {"front": [[square(SPEED * k) for k in range(30)]]}, rows()[:1])
    (episodes,) = (lab.footage / "meta" / "episodes").rglob("*.parquet")
    whole = episodes.read_bytes()
    episodes.write_bytes(whole[:100])
    assert inline.ingest(str(lab.footage), str(lab.dataset)).scan.rejected == 1
    assert inline.ingest(str(lab.footage), str(lab.dataset)).scan.rejected == 0  # nor tried again
    episodes.write_bytes(whole)
    assert inline.ingest(str(lab.footage), str(lab.dataset)).scan.scanned == 1


@pytest.mark.parametrize(
    "info",
    [
        {"codebase_version": "v3.0", "data_path": "data/{shard}.parquet"},
        {"codebase_version": "v3.0", "data_path": "data/{chunk_index:nonsense}.parquet"},
    ],
)
def test_a_root_that_names_its_files_otherwise_is_refused(
    info: dict[str, str], tmp_path: Path
) -> None:
    write_root(tmp_path, {"front": [[square(0)] * 4]}, [{"action": [[0.0]] * 4}])
    (tmp_path / "meta" / "info.json").write_text(json.dumps(info))
    (video,) = tmp_path.rglob("*.mp4")
    with pytest.raises(UnusableTrack, match="its episodes cannot be read"):
        episodes_of(Storage(), f"{tmp_path}/meta/info.json", str(video))


def test_an_info_that_is_too_deep_is_none() -> None:
    assert (
        info_of(b'{"codebase_version": "v3.0", "x": ' + b"[" * 200_000 + b"]" * 200_000 + b"}")
        is None
    )
