"""Target propagation: the rule, its variants, and differences of activations without loss of digits."""
