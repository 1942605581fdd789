"""The agent: runs models on one box, serves local applications, reports back."""
