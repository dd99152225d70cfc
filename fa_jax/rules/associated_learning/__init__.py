"""Associated learning: the rule, and its pipeline over several devices."""
