"""``python -m skaudioemb``, the same as the command ``skaudioemb``."""

import sys

from skaudioemb.cli import main

if __name__ == "__main__":
    sys.exit(main())
