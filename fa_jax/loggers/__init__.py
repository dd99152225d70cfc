"""What sends a run's numbers to a tracker of experiments; a tracker's package is imported only when it is asked for."""
