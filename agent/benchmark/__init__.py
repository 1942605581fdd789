"""Measures what a slot costs over OpenVINO itself, with a server of its own on the slot's artifact and configuration.

The agent's own slot is not asked: its results, samples and metrics would tell of parts that never were. What the bench
does is the same code in a child, which keeps its results in a folder that goes with it.
"""
