"""Cosmos: attention over all that was, so in windows; constants for each latent frame."""

from __future__ import annotations

from telecine.encoders.video.families.base import Family, Sample

COSMOS = Family(
    class_name="AutoencoderKLCosmos",
    name="cosmos",
    published=("Cosmos",),
    window=15,  # it has constants for 16 latent frames, which is the length it was made for
    gaussian=False,
    scale=0.5,  # sigma_data of the scheduler that its diffusion models come with
    samples=(
        Sample(
            name="cosmos",
            arguments={
                "latent_channels": 4, "encoder_block_out_channels": (8, 16, 16, 16),
                "decode_block_out_channels": (8, 16, 16, 16), "num_layers": 1,
            },
            constants=4 * 5,
            temporal_stride=8,
            spatial_stride=8,
            channels=4,
            identity="b10b7cfa94e1e236",
        ),
    ),
)  # fmt: skip
