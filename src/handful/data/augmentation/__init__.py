"""Batch augmentation: every image has parameters of its own, and is resampled once."""
