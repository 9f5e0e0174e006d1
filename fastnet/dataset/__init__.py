"""Data: CIFAR-100 with the course's choice of classes, synthetic images if it is not available, and your own files."""

from fastnet.dataset._cifar100 import cifar100
from fastnet.dataset._course import onehot, scale
from fastnet.dataset._data import Data
from fastnet.dataset._load import SOURCES, load
from fastnet.dataset._npz import from_npz
from fastnet.dataset._synthetic import synthetic

__all__ = ["SOURCES", "Data", "cifar100", "from_npz", "load", "onehot", "scale", "synthetic"]
