"""One script a contestant, run by its own environment's Python: none of them is imported by the command."""
