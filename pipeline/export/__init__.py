"""What a trainer or a reader needs beside a build, by format."""
