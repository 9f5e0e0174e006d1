"""``python -m fastnet.check``."""

import sys

from fastnet.check._command import main

sys.exit(main())
