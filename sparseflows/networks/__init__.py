"""Classifiers without an ODE: multilayer perceptrons and small convolutional networks."""
