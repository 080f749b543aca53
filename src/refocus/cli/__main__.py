"""`python -m refocus.cli`: how torchrun and the app start the command line."""

from refocus.cli.main import main

main()
