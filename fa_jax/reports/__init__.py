"""Tables and figures of recorded runs; imports no training code."""
