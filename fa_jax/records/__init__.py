"""The folder of a run: writing and reading it. Nothing is pickled, so opening a run executes nothing."""
