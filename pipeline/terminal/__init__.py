"""Text, pictures and progress on a terminal."""
