"""The reference trainers. Each is a command of its own by the documented contract. Of the controller they import how a
model is found among files, and nothing else."""
