"""How fast training, features, reading files and the tests are."""
