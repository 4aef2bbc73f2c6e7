"""The chain of a module of Linear and Conv2d layers: traced symbolically, followed layer by layer."""
