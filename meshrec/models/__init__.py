"""Networks that take 2D to 3D, and the geometry that they stand on."""
