"""What a trainer reads in place of the tables: where every sample of a build lies."""
