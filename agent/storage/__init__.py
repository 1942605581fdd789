"""The agent's folder on disk. Whatever is found here again after a kill or a power cut is whole, or is set aside."""
