"""Read label files, also those of other tools, and match their rows to images."""
