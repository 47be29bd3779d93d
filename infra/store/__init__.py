"""What lies below infra/storage.py: a disk, an S3-compatible store, reading ahead, names."""
