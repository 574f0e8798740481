"""Decode image files within bounds of memory, time and size."""
