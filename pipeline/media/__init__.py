"""The pixel contract: hostile files opened, and their pictures as they are meant to be shown."""
