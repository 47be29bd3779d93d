"""What is true: schemas, specs, fingerprints, tables, queries. Imports no torch, av or ray."""
