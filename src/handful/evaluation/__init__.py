"""Score predictions and features, and estimate accuracy on new images."""
