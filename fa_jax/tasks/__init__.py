"""Tasks, one a file: each a factory `(**options) -> Task`. Data is loaded here and nowhere else."""
