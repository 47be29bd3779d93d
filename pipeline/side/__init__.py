"""What happened beside the picture: track files, their reading, and their alignment to frames."""
