"""The controller's own certificate authority, in files."""
