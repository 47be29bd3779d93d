"""browse: a dataset in a web browser, and the same overview as one file to send around."""
