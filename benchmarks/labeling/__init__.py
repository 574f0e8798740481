"""The labelling page: keys, times, crashes, and whether its figure holds."""
