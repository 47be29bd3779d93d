"""The models: video encoders and captioners. Imports nothing of the pipeline."""
