"""Batch augmentation: every image draws its own parameters and is resampled once."""
