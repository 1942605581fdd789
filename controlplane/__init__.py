"""The controller: what should run where, what does, and what came back."""
