"""Judge predictions and features."""
