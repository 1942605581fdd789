"""The operators' command line, on the client alone."""
