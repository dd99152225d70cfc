"""Tables, figures and pages of recorded runs; imports no training code."""
