"""What can be known of a dataset, as values. Nothing here prints."""
