"""How the entries of a network's weights relate to the eigenspaces of its Hessian."""
