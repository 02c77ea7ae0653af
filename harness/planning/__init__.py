"""What a target needs: rows x seeds, trainings, costs. May import verdicts and slurm and what stands right."""
