"""What is in force, as SQL: the view of a dataset, captions, scores, the language of --where."""
