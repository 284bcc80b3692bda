"""The command line: compose and refuse, build the parts of a run, sweep, launch, stop. Alone imports hydra."""
