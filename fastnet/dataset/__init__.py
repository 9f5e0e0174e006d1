"""The data: CIFAR-100 by the course's rule, synthetic images where it is not at hand, and files of one's own."""

from fastnet.dataset._cifar100 import cifar100
from fastnet.dataset._course import onehot, scale
from fastnet.dataset._data import Data
from fastnet.dataset._load import SOURCES, load
from fastnet.dataset._npz import from_npz
from fastnet.dataset._synthetic import synthetic

__all__ = ["SOURCES", "Data", "cifar100", "from_npz", "load", "onehot", "scale", "synthetic"]
