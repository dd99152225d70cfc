"""Architectures, one a file: each a factory `(input_shape, outputs, **options) -> Network`."""
