"""Every bound of the agent, each with its reason."""

CHUNK_BYTES_MAX = 1 << 20
"""Measured optimum for streaming bytes over gRPC."""
