"""An encoder, a captioner, a scorer and an exporter for Telecine, as small as they can be."""
