"""Data sets: what they are, where their files lie, balanced subsets, label noise, and tensors ready for a network."""
