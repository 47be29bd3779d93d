"""Where it runs: object storage, Ray, errors."""
