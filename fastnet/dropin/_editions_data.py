"""The classes that ``cifar100(seed)`` returns: those of the folder's dataset.py, changed by ``--classes``."""

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
    "a number of classes and, optionally, replace or distinct, images or rows, and onehot or integers (test labels), such "
    "as 3, or 4,replace,images"
)


class Edition(NamedTuple):
    """The form of the data that a ``cifar100(seed)`` returns, which differs between years of the course."""

    n_classes: int
    replace: bool
    images: bool  # (n, 3, 32, 32), not (n, 3072)
    dtype: str = "float64"
    one_hot_test: bool = False  # whether test labels are one-hot, too
    returns_chosen: bool = False  # whether it returns the drawn classes as a third value
    root: str | None = None  # the folder from which it reads

    def __str__(self) -> str:
        return (f"{self.n_classes} classes drawn {'with' if self.replace else 'without'} replacement, "
                f"{'images (n, 3, 32, 32)' if self.images else 'rows (n, 3072)'}, test labels "
                f"{'one-hot' if self.one_hot_test else 'as integers'}")


_WORDS: dict[str, dict[str, Any]] = {
    "replace": {"replace": True}, "distinct": {"replace": False}, "images": {"images": True}, "rows": {"images": False},
    "onehot": {"one_hot_test": True}, "integers": {"one_hot_test": False}}


def parse(text: str, who: str) -> dict[str, Any]:
    """Read the value of ``--classes`` or FASTNET_CLASSES, which names some fields of an `Edition`.

    Raises
    ------
    ValueError
        If the text has another form.
    """
    number, *words = (word.strip() for word in text.split(","))
    if not number.isdecimal() or not 2 <= int(number) <= 100 or any(word not in _WORDS for word in words):
        raise ValueError(f"{who}: expected {USAGE}; got {text!r}.")
    named: dict[str, Any] = {"n_classes": int(number)}
    for word in words:
        named |= _WORDS[word]
    return named


def known(named: dict[str, Any]) -> Edition:
    """Return the year's form of the data that these fields belong to, if the folder has no ``cifar100``.

    The next chapter uses images and one-hot test labels, with 3 classes in 2019. In 2018 the course drew 4 classes with
    replacement.
    """
    images = named.get("images", named["n_classes"] == 3)
    return Edition(named["n_classes"], replace=named["n_classes"] == 4, images=images, one_hot_test=images)._replace(**named)


def loader(local: Source) -> Callable[..., Any]:
    """Make the function ``cifar100`` of a module ``layers.dataset`` with the source file ``local``."""

    def cifar100(seed: int, *args: Any, **options: Any) -> Any:
        """Load the classes that the course's ``cifar100(seed)`` draws; see :mod:`fastnet.dropin`.

        Further arguments are those of the folder's function or, without one, of :func:`fastnet.dataset.cifar100`.
        """
        found = _of_folder(local, seed, *args, **options)
        if (isinstance(found, dict) and found.get("signature")) or (found is None and (args or options)):
            return dataset.cifar100(seed, *args, **options)
        asked = os.environ.get(VARIABLE)
        if asked:
            named = parse(asked, VARIABLE)
            edition = found._replace(**named) if isinstance(found, Edition) else known(named)
            return _serve(seed, edition, local, f"by {VARIABLE} or --classes")
        if found is None:
            return _serve(seed, known({"n_classes": 5}), local, "as this chapter does; for other classes use --classes")
        if isinstance(found, Edition):
            return _serve(seed, found, local, f"as {local.path} does")
        local.say(f"cifar100 is the function of {local.path}, because {found['failed']}; --classes selects fastnet's")
        return local.value("cifar100")(seed, *args, **options)

    return cifar100


def _of_folder(local: Source, seed: Any, *args: Any, **options: Any) -> Edition | dict[str, Any] | None:
    """Return the form of the folder's data, an answer with ``failed`` for an unknown form, or None without a function."""
    if local.path is None or "cifar100" not in local.defined():
        return None
    plain = int(seed) if isinstance(seed, np.integer) else seed
    answer = ask("dataset", local.path, plain, *args, **options)
    return answer if "failed" in answer else Edition(**answer)


def _serve(seed: int, edition: Edition, local: Source, says: str) -> Any:
    local.say(f"cifar100 returns {edition}, {says}")
    root = edition.root if edition.root and os.path.isdir(edition.root) else None
    data = dataset.cifar100(
        seed, edition.n_classes, dtype=edition.dtype, root=root, replace=edition.replace, images=edition.images
    )
    # The course seeds NumPy's global state here, which then determines the initial weights of a model.
    np.random.seed(seed)
    chosen = np.random.choice(np.arange(0, 100), edition.n_classes, replace=edition.replace)
    (x_train, y_train), (x_test, y_test) = data
    if edition.one_hot_test:
        data = dataset.Data((x_train, y_train), (x_test, dataset.onehot(y_test)), data.class_names, data.name)
    return (*data, chosen) if edition.returns_chosen else data
