"""Data sets: what they are, where their files lie, parts, balanced subsets, label noise, tensors for networks."""
