"""The reference trainers. Each is a command of its own by the documented contract, and imports nothing of the controller."""
