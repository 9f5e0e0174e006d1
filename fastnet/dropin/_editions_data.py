"""Which classes ``cifar100(seed)`` serves: the edition that was asked for, or what the folder's dataset.py draws."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastnet import dataset
from fastnet.dropin import _read_dataset
from fastnet.dropin._local import Source
from fastnet.dropin._read_dataset import Edition

VARIABLE = "FASTNET_CLASSES"
USAGE = "a number of classes, and if need be replace or distinct, images or rows: 3, or 4,replace,images"

# The editions that are known by their number of classes.
_KNOWN = {3: Edition(3, replace=False, images=True), 4: Edition(4, replace=True, images=False)}
_WORDS = ("replace", "distinct", "images", "rows")


class _Choice(NamedTuple):
    """What to serve, and who says so; no edition if the folder's own function is to do it."""

    edition: Edition | None
    says: str


def parse(text: str, who: str) -> Edition:
    """An edition as ``--classes`` and FASTNET_CLASSES spell it.

    Raises
    ------
    ValueError
        If it is not spelled so.
    """
    number, *words = (word.strip() for word in text.split(","))
    unknown = [word for word in words if word not in _WORDS]
    if not number.isdecimal() or not 2 <= int(number) <= 100 or unknown:
        raise ValueError(f"{who}: {text!r} is not an edition. It is {USAGE}.")
    edition = _KNOWN.get(int(number), Edition(int(number), replace=False, images=False))
    for word in words:
        edition = (
            edition._replace(replace=word == "replace") if word in ("replace", "distinct")
            else edition._replace(images=word == "images")
        )
    return edition


def loader(local: Source) -> Callable[..., Any]:
    """The function ``cifar100`` of a module ``layers.dataset`` whose own source file is ``local``."""

    def cifar100(seed: int, *args: Any, **options: Any) -> Any:
        """Load the classes that the course's ``cifar100(seed)`` draws; see :mod:`fastnet.dropin`.

        Arguments beyond the seed are those of :func:`fastnet.dataset.cifar100`, and say what is served.
        """
        if args or options:
            return dataset.cifar100(seed, *args, **options)
        choice = _choose(local)
        if choice.edition is None:
            local.say(f"cifar100 is that of {local.path}, since {choice.says}; --classes serves fastnet's")
            return local.value("cifar100")(seed)
        local.say(f"cifar100 serves {choice.edition}: {choice.says}")
        return _serve(seed, choice.edition)

    return cifar100


def _choose(local: Source) -> _Choice:
    asked = os.environ.get(VARIABLE)
    if asked:
        return _Choice(parse(asked, VARIABLE), f"{VARIABLE} or --classes asks for it")
    if local.path is None or "cifar100" not in local.defined():
        return _Choice(Edition(5, replace=False, images=False), "this chapter's edition; for another: --classes")
    try:
        return _Choice(_read_dataset.read(Path(local.path)), f"{local.path} draws them")
    except _read_dataset.Unreadable as reason:
        return _Choice(None, str(reason))


def _serve(seed: int, edition: Edition) -> Any:
    root = edition.root if edition.root and os.path.isdir(edition.root) else None
    data = dataset.cifar100(
        seed, edition.n_classes, dtype=edition.dtype, root=root, replace=edition.replace, images=edition.images
    )
    # The course seeds NumPy's global state here, and the weights of a model made afterwards follow from it.
    np.random.seed(seed)
    chosen = np.random.choice(np.arange(0, 100), edition.n_classes, replace=edition.replace)
    (x_train, y_train), (x_test, y_test) = data
    if edition.one_hot_test:
        data = dataset.Data((x_train, y_train), (x_test, dataset.onehot(y_test)), data.class_names, data.name)
    return (*data, chosen) if edition.returns_chosen else data
