"""Tests against a real Slurm, and the private cluster that they start."""
