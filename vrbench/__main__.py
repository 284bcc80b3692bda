"""`python -m vrbench` is `vrbench`."""

from vrbench.cli import main

main()
