"""`handful serve`: answer over HTTP. The service itself imports no torch, so it starts at once."""
