"""The parts of `python benchmarks/speed.py`: who is compared, how each is asked and timed, and what is reported."""
