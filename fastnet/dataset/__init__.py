"""The data: CIFAR-100 by the course's rule, and synthetic images where it is not at hand."""

from fastnet.dataset._data import Data
from fastnet.dataset._synthetic import synthetic

__all__ = ["Data", "synthetic"]
