"""The command line: `python -m vs_vsr`, the same as `vs-vsr`."""

import sys

from vs_vsr.cli import main

sys.exit(main())
