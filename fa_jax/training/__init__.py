"""The training loop: compiled programs, runs, and several processes."""
