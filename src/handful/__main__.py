"""`python -m handful` is `handful`."""

from handful.cli import main

main()
