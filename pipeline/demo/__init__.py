"""The demo's footage, rendered."""
