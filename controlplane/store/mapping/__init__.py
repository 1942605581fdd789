"""Rows to entities and back, explicitly, one module per aggregate. Every pair is tested as a round trip."""
