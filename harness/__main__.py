"""`python -m harness ...` is the same as `quantboard ...`."""

import sys

from harness.cli import main

sys.exit(main())
