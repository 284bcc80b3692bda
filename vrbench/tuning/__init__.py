"""Searches over hyperparameters, and the confirmation of what they found."""
