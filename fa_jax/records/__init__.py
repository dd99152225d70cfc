"""What a run leaves on disk, and reading it back. Nothing is pickled, so opening a run can execute nothing."""
