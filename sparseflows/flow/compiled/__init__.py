"""The engine in C: the field's evaluation, its gradient and the solves around it, for networks that fit the caches."""
