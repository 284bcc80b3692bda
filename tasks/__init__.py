"""One task per file: its data, loss, metrics and pictures."""
