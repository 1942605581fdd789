"""Content-addressed bytes: the object store through obstore, and uploads on their way into it."""
