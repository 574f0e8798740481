"""`handful serve`: answer over HTTP. Nothing here imports torch, so that it starts at once."""
