"""Trainings struck at random moments, here and on Slurm."""
