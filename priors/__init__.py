"""Pose priors: probability on joint rotations, without images, cameras or meshes."""
