"""Networks that find the shots of a film."""
