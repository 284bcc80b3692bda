"""Losses that more than one task uses."""
