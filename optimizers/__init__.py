"""Optimizers that torch lacks and no library keeps well: one per file, torch only."""

from optimizers.vradam import VRAdam

__all__ = ["VRAdam"]
