"""The command: what is asked for, and what is printed."""
