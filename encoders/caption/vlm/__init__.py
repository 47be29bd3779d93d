"""Vision-language models of the transformers library."""
