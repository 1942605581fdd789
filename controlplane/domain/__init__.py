"""Decisions as pure functions of values. Standard library only; no I/O, clock, logging or async."""
