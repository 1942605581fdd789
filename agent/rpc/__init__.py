"""Wires: the controller as the agent reaches it, and the local inference servers."""
