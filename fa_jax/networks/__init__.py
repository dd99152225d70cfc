"""Architectures, one per file: each a factory `(input_shape, outputs, **options) -> Network`."""
