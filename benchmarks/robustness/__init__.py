"""What hostile files, mutated records and kills at any moment do, and whether behaviour stays."""
