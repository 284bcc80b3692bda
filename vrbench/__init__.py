"""vrbench: is this optimizer better on my task, and why?"""

__version__ = "0.1.0"
