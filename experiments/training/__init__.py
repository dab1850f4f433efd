"""The lab's training job: a real torchrun job of processes on this machine, and what can befall it."""
