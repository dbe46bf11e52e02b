"""The commands of `python -m hessketch`, one module each: its arguments and what it runs."""
