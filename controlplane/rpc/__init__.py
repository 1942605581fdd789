"""gRPC: servers, interceptors, conversions and thin servicers. Nothing below this room knows gRPC or the wire."""
