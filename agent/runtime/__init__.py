"""OpenVINO, and nothing else knows it: devices, measurement in child processes, and models that answer.

Rules kept here: whatever can kill a process (enumeration, compilation, a first inference) runs in a child under a time
and memory limit; the agent's own process holds one Core and loads only what a child has compiled and inferred; a
compiled blob is loaded only when its hash is the one that was written down when a child finished it.
"""
