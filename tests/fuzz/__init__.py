"""Readers and stream decoders under random bytes: `python -m fuzz readers`, and a short round in the suite."""
