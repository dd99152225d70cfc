"""Equilibrium propagation: the states that settle, the network that predicts by settling, the rule."""
