"""What a sample shows of a network: activations, gradients, statistics."""
