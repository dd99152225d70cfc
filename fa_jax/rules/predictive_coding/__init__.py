"""Predictive coding: the energy, the ways to infer activities from it, the rule."""
