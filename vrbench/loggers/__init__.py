"""Where a run's numbers go besides its folder: one place per file."""
