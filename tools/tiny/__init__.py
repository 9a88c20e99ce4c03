"""Tiny data sets in the layouts of the large ones, from rendered people: a module for each step."""
