"""The repositories of `ports.py` over SQL, one module per aggregate."""
