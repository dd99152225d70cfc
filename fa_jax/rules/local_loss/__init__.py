"""Local error signals: the losses of a stage, and the rule."""
