"""Loading, in-memory batching and augmentation."""
