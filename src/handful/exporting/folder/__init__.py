"""What `handful export` copies into the folder that it leaves; it imports nothing of handful."""
