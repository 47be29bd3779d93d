"""Still images, format by format: what is pixels, what is metadata, and what is no picture."""
