"""Run a pile of feedback through a language model."""
