"""What `bench.py` measures, one file for each room."""
