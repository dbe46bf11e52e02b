"""Matrix-free spectral algorithms on flat tensors; each needs an operator with `shape`, `dtype`, `device` and `@`."""
