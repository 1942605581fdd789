"""Every bound of the controller, each with its reason."""

PAGE_SIZE_DEFAULT = 50
PAGE_SIZE_MAX = 1000
"""A page of the largest resource stays well under the message bound."""

MESSAGE_BYTES_MAX = 9 << 20
"""Largest gRPC message: a sample's content of 8 MiB and its description."""
SAMPLE_BYTES_MAX = 8 << 20
CHUNK_BYTES_MAX = 1 << 20
"""Measured optimum for streaming bytes over gRPC."""
