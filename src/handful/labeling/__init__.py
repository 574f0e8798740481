"""The labelling page: images, keys, a journal, and a classifier that learns meanwhile."""
