"""Learning rules, one a file: each a factory `(network, loss, **options) -> Rule`."""
