"""`python -m fa_jax`: the same as `fa-jax`."""

import sys

from fa_jax.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
