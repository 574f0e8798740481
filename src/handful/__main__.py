"""Run the command line with `python -m handful`."""

from handful.cli import main

main()
