"""Learning rules, one per file: each a factory `(network, loss, **options) -> Rule`."""
