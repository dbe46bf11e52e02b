"""Training by stochastic gradient descent, its schedule, and the choice of the learning rate."""
