"""Bytes on disk to items and rows, and back."""
