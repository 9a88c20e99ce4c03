"""One loop, and one task per thing that is trained."""
