"""Where objects lie: disks and S3-compatible stores under one set of names."""
