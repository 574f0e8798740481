"""How accurate each method is, by labels, minutes, recipe and choice."""
