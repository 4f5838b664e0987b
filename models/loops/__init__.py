"""Loops compiled for the processor at hand: what torch would do in many passes over memory (decision 0019)."""
