"""Loggers, which send runs to experiment trackers. The package of a tracker is imported only when it is used."""
