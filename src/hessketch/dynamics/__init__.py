"""What happens during training: curvature, noise and loss at points along a trajectory of weights."""
