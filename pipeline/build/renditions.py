"""Renditions: builds of one corpus at several sizes and rates, made and current together.

    [renditions]  final = {}  draft = {short_side = 256}

    final   A: 1 4 7     B: 2 3 9      the first one: [vae] itself
    draft   A: 1   7     B: 2 3 9      follows it, in buckets of its own; 4 is smaller than 256 px
            └─ one job ─┘└─ one job ─┘

docs/decisions/0024-renditions.md says why so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from telecine.encoders.video.interface import VideoEncoder
from telecine.manifests.builds import family_text
from telecine.manifests.dataset import Dataset
from telecine.pipeline.build.events import Work, unwritten
from telecine.pipeline.build.identity import Generation
from telecine.pipeline.build.plan import ShardPlan
from telecine.pipeline.build.worker import ShardJob


def generations(
    dataset: Dataset, encoder: VideoEncoder, name: str | None = None
) -> tuple[Generation, ...]:
    """The builds that the dataset's spec asks for, the one first that the others follow.

    `name` is that one's. Raises UsageError as Generation.of does.
    """
    spec = dataset.spec
    first = Generation.of(dataset, encoder, name)
    if not spec.renditions:
        return (first,)
    others = sorted(spec.renditions.keys() - {spec.first_rendition})
    made = {spec.first_rendition: first}
    for rendition in others:
        asked = dataclasses.replace(dataset, spec=spec.as_rendition(rendition))
        default = f"{name}-{rendition}" if name else f"{{encoder}}-{rendition}-{{id}}"
        made[rendition] = Generation.of(asked, encoder, default=default)
    family = family_text({name: one.build_id for name, one in made.items()})
    return tuple(dataclasses.replace(one, family=family) for one in made.values())


def joined_jobs(
    dataset: Dataset,
    works: Sequence[Work],
    make_jobs: Callable[[Dataset, Work, list[ShardPlan]], Iterator[ShardJob]],
) -> tuple[int, Iterator[ShardJob]]:
    """How many jobs, and the jobs: of each shard that some of the plans lack, all of them as one.

    A shard of one build alone is made alone; its bytes are the same.
    """
    lacking: dict[str, dict[int, ShardPlan]] = {}
    for number, work in enumerate(works):
        for shard in unwritten(dataset, work):
            lacking.setdefault(shard.shard_id, {})[number] = shard
    each = [
        make_jobs(dataset, work, [s[number] for s in lacking.values() if number in s])
        for number, work in enumerate(works)
    ]

    def jobs() -> Iterator[ShardJob]:
        for shards in lacking.values():
            first, *beside = [next(each[number]) for number in sorted(shards)]
            yield dataclasses.replace(first, beside=tuple(beside)) if beside else first

    return len(lacking), jobs()
