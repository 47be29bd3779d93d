"""What pairs of frames tell: how the whole picture moves, and whether that can be told."""
