"""``python -m bench.compare BASE [HEAD]``: the gate, ``fastnet compare``, from a checkout of fastnet."""
import sys

from fastnet.gate.command import main

if __name__ == "__main__":
    sys.exit(main(["--path", "bench", *sys.argv[1:]], prog="python -m bench.compare"))
