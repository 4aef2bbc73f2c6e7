"""What is cut: masks for weights, real removal for neurons and channels."""
