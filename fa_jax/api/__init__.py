"""The Python API, exported from `fa_jax`: it trains and reads runs as the command line does, and prints nothing."""
