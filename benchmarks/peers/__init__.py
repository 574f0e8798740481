"""What others make of the same draws of labels."""
