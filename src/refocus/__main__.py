"""`python -m refocus`."""

from refocus.cli.main import main

main()
