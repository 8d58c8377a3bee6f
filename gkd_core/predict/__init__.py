"""A student in use: the bundle that it is taken away as, and label maps of anybody's images."""
