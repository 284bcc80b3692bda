"""A run's folder: what makes two runs one, what lies in it, and what is to be done with one that is there already."""
