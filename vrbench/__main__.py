"""`python -m vrbench` is `vrbench`."""

from vrbench.app.main import main

main()
