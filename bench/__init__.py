"""Benchmarks: `make bench` runs them all, `python -m bench.<module>` runs one.

Each compares ways to do the same thing side by side in one run, interleaved, so that the ratios
hold also on a machine that is busy with other things. What is printed is what docs/benchmarks.md
shows.
"""
