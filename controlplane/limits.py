"""Every bound of the controller, each with its reason."""

from datetime import timedelta

PAGE_SIZE_DEFAULT = 50
PAGE_SIZE_MAX = 1000
"""A page of the largest resource stays well under the message bound."""

MESSAGE_BYTES_MAX = 9 << 20
"""Largest gRPC message: a sample's content of 8 MiB and its description."""
SAMPLE_BYTES_MAX = 8 << 20
CHUNK_BYTES_MAX = 1 << 20
"""Measured optimum for streaming bytes over gRPC."""

# --- identity, servers and sync -------------------------------------------------------------------

AGENT_CERTIFICATE_TTL_DEFAULT = timedelta(days=30)
"""Agents renew at two thirds of it: a month leaves ten days to notice a broken renewal."""
AGENT_CERTIFICATE_TTL_MIN = timedelta(seconds=10)
"""Below that a renewal cannot be counted on to arrive in time."""
AGENT_CERTIFICATE_TTL_MAX = timedelta(days=825)
"""What common TLS stacks accept at most."""
SYNC_INTERVAL_SECONDS_DEFAULT = 2.0
"""Holds 10,000 agents at 5,000 messages a second; fewer feel immediate."""
BIND_RETRY_SECONDS = 5.0
"""A killed predecessor's bytes process needs a moment to let go of its ports."""
SHUTDOWN_GRACE_SECONDS = 4.0
"""Calls under way may end; with the rest of the shutdown it stays under 5 s."""
