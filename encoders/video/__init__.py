"""Video encoders: the embedded transform, and the autoencoders of the diffusers library."""
