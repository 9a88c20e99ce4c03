"""What is learned from and measured on: records of people, and poses of moving ones."""
