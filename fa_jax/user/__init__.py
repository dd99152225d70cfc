"""What users bring: their code, which is imported on their word alone, and text, which is shown as it is."""
