"""What a model's outputs are scored by."""
