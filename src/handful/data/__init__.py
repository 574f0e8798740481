"""Read images and labels, check and cache them, split them and augment batches."""
