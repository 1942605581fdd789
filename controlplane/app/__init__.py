"""Use cases over `ports.py`; async; one module per aggregate."""
