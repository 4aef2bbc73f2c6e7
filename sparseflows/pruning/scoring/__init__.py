"""One importance score a weight or neuron; budgets and bounds."""
