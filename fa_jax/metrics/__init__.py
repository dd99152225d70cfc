"""Scores of outputs, and measures of a rule on the probe batch."""
