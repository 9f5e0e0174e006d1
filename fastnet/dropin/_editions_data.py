"""Which classes ``cifar100(seed)`` serves: what the folder's dataset.py serves, changed by what is asked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastnet import dataset
from fastnet.dropin._ask import ask
from fastnet.dropin._local import Source

VARIABLE = "FASTNET_CLASSES"
USAGE = (
    "a number of classes, and if need be replace or distinct, images or rows, and onehot or integers for the test labels: "
    "3, or 4,replace,images"
)


class Edition(NamedTuple):
    """What a ``cifar100(seed)`` returns."""

    n_classes: int
    replace: bool
    images: bool  # (n, 3, 32, 32), not (n, 3072)
    dtype: str = "float64"
    one_hot_test: bool = False  # test labels one-hot too
    returns_chosen: bool = False  # the classes drawn as a third value
    root: str | None = None  # the folder that it reads

    def __str__(self) -> str:
        return (f"{self.n_classes} classes drawn {'with' if self.replace else 'without'} replacement, "
                f"{'images (n, 3, 32, 32)' if self.images else 'rows (n, 3072)'}, test labels "
                f"{'one-hot' if self.one_hot_test else 'as integers'}")


_WORDS: dict[str, dict[str, Any]] = {
    "replace": {"replace": True}, "distinct": {"replace": False}, "images": {"images": True}, "rows": {"images": False},
    "onehot": {"one_hot_test": True}, "integers": {"one_hot_test": False}}


def parse(text: str, who: str) -> dict[str, Any]:
    """What ``--classes`` and FASTNET_CLASSES name: some fields of an edition.

    Raises
    ------
    ValueError
        If it is not spelled so.
    """
    number, *words = (word.strip() for word in text.split(","))
    if not number.isdecimal() or not 2 <= int(number) <= 100 or any(word not in _WORDS for word in words):
        raise ValueError(f"{who}: {text!r} is not an edition. It is {USAGE}.")
    named: dict[str, Any] = {"n_classes": int(number)}
    for word in words:
        named |= _WORDS[word]
    return named


def known(named: dict[str, Any]) -> Edition:
    """The edition of the course that what is named belongs to, where the folder does not tell.

    The next chapter serves images and one-hot test labels, 3 classes in 2019; 2018 drew 4 classes with replacement.
    """
    images = named.get("images", named["n_classes"] == 3)
    return Edition(named["n_classes"], replace=named["n_classes"] == 4, images=images, one_hot_test=images)._replace(**named)


def loader(local: Source) -> Callable[..., Any]:
    """The function ``cifar100`` of a module ``layers.dataset`` whose own source file is ``local``."""

    def cifar100(seed: int, *args: Any, **options: Any) -> Any:
        """Load the classes that the course's ``cifar100(seed)`` draws; see :mod:`fastnet.dropin`.

        Arguments beyond the seed are those of the folder's own function, or else of :func:`fastnet.dataset.cifar100`.
        """
        found = _of_folder(local, seed, *args, **options)
        if (isinstance(found, dict) and found.get("signature")) or (found is None and (args or options)):
            return dataset.cifar100(seed, *args, **options)
        asked = os.environ.get(VARIABLE)
        if asked:
            named = parse(asked, VARIABLE)
            edition = found._replace(**named) if isinstance(found, Edition) else known(named)
            return _serve(seed, edition, local, f"{VARIABLE} or --classes asks for it")
        if found is None:
            return _serve(seed, known({"n_classes": 5}), local, "this chapter's edition; for another: --classes")
        if isinstance(found, Edition):
            return _serve(seed, found, local, f"{local.path} serves them")
        local.say(f"cifar100 is that of {local.path}, since {found['failed']}; --classes serves fastnet's")
        return local.value("cifar100")(seed, *args, **options)

    return cifar100


def _of_folder(local: Source, seed: Any, *args: Any, **options: Any) -> Edition | dict[str, Any] | None:
    """What the folder's own function serves; an answer with ``failed`` if that is no edition; None without a function."""
    if local.path is None or "cifar100" not in local.defined():
        return None
    plain = int(seed) if isinstance(seed, np.integer) else seed
    answer = ask("dataset", local.path, plain, *args, **options)
    return answer if "failed" in answer else Edition(**answer)


def _serve(seed: int, edition: Edition, local: Source, says: str) -> Any:
    local.say(f"cifar100 serves {edition}: {says}")
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
