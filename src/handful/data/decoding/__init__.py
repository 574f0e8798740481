"""Decode image files of any kind within bounds of memory, time and size."""
