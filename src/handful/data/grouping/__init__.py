"""Groups: images of one scene, person, burst or track, which no fold may split.

`rules` reads `--groups` and groups images by their folders or names, as typed. `find` looks for
groups that nobody gave: it takes `signs` (names, numbers, times, folders) and asks `evidence`
whether images that a sign puts together look more alike than others of their class.
"""
