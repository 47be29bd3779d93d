"""Objects → sources, clips, stills."""
