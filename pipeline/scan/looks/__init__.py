"""What stills and the frames that they come from look like. Pure NumPy."""
