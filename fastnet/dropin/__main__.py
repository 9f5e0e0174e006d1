"""``python -m fastnet.dropin``."""

from fastnet.dropin._command import main

main()
