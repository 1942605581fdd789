"""Channels to the controller: TLS pinned to its CA, any address, bounded messages."""

import grpc
import grpc.aio

from agent import limits
from agent.app.ports import Identity

SERVER_NAME = "controlplane.lineside.internal"
"""Name in every controller's certificate, so that it may be reached by any address."""


def open_channel(target: str, *, ca_pem: bytes, identity: Identity | None = None) -> grpc.aio.Channel:
    """A channel that trusts `ca_pem` alone and shows `identity` where there is one. It connects when it is used."""
    credentials = grpc.ssl_channel_credentials(
        root_certificates=ca_pem,
        private_key=identity.key_pem if identity is not None else None,
        certificate_chain=identity.certificate_pem if identity is not None else None,
    )
    return grpc.aio.secure_channel(target, credentials, options=_OPTIONS)


def has_failed(channel: grpc.aio.Channel) -> bool:
    """Whether its last dial failed, so that calls fail at once, without another dial, until it dials by itself."""
    return channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE


_OPTIONS = [
    ("grpc.ssl_target_name_override", SERVER_NAME),
    ("grpc.max_receive_message_length", limits.MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", limits.MESSAGE_BYTES_MAX),
    ("grpc.keepalive_time_ms", int(limits.KEEPALIVE_SECONDS * 1_000)),
    ("grpc.keepalive_timeout_ms", int(limits.KEEPALIVE_TIMEOUT_SECONDS * 1_000)),
    # Our own loops wait with jitter, and open a new channel where a dial has failed.
    ("grpc.initial_reconnect_backoff_ms", int(limits.CHANNEL_REDIAL_SECONDS * 1_000)),
    ("grpc.max_reconnect_backoff_ms", int(limits.CHANNEL_REDIAL_SECONDS * 1_000)),
    # A renewed certificate must not share a connection with the old one.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
]
