"""Use cases over `ports.py`."""
