"""What a trainer imports: packs of a build's samples. Loads neither Ray nor the tables."""

from telecine.pipeline.feed.feed import Feed
from telecine.pipeline.feed.pack import Member, Pack
from telecine.pipeline.feed.patches import patchify, unpatchify
from telecine.pipeline.feed.schedule import Schedule

__all__ = ["Feed", "Member", "Pack", "Schedule", "patchify", "unpatchify"]
