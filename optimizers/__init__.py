"""Optimizers that torch lacks and no library keeps well: one per file, torch only."""

from .vradam import VRAdam

__all__ = ["VRAdam"]
