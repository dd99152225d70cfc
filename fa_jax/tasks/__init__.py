"""Tasks, one per file: each a factory `(**options) -> Task`. All data is loaded here."""
