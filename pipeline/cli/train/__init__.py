"""The commands beside a training run: what it will get, and what it asks for."""
