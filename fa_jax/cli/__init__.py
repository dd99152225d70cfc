"""The command line: from typed arguments to runs."""
