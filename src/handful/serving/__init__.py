"""`handful serve`: answer over HTTP. What serves imports no torch, so that it starts at once."""
