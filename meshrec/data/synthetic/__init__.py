"""Photographs that never were: people made of poses and shapes, dressed, lit and drawn; and the truth about them."""
