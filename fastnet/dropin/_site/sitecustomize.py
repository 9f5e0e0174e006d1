"""Imported by a Python that starts with this folder on its PYTHONPATH; see fastnet.dropin._children.

It may be any Python, of any version; this module does nothing in another installation than the one with the drop-in.
"""
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


def _serve():
    if os.environ.get("FASTNET_DROPIN") != sys.prefix:
        return
    root = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))  # the folder that contains fastnet
    sys.path.insert(0, root)
    try:
        import fastnet.dropin
    except ImportError:
        return
    finally:
        sys.path.remove(root)
    fastnet.dropin.install(quiet=True)


def _next():
    """Import the sitecustomize that this one hides."""
    try:
        from importlib.machinery import PathFinder
        from importlib.util import module_from_spec
    except ImportError:  # Python 2
        return
    spec = PathFinder.find_spec("sitecustomize", [entry for entry in sys.path if os.path.abspath(entry) != HERE])
    if spec is not None and spec.loader is not None:
        sys.modules["sitecustomize"] = module = module_from_spec(spec)
        spec.loader.exec_module(module)


_serve()
_next()
