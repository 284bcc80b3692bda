"""The contract of each kind of part as properties: short functions that a part is tried against, one file a kind."""
