"""Looks at everything that an agent needs of its box, its folder and its controller, and names the remedy of each
fault. It changes nothing, whether or not an agent runs."""
