"""Assembles one batch run."""
