"""Runs work: bounded concurrency, attempts, retries, stopping. Knows no file and no terminal."""
