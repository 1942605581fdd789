"""The demo: a solar-cell defect classifier carried to two stations and a line server, on real images."""
