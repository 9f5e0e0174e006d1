"""The command ``fastnet train``: it trains one network and writes pictures and a report."""
from __future__ import annotations

import argparse
import platform
import shlex
import sys
import time
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from fastnet import CrossEntropyLayer, CSVLogger, FullLayer, ReluLayer, Sequential, SoftMaxLayer, __version__
from fastnet.cli import failed
from fastnet.dataset import SOURCES, load

_UNITS = 20  # of the first layer, whose weights the report shows

DESCRIPTION = """\
Train one network, and draw its results: loss curves, confusion matrix,
accuracy of each class, mistakes, weights.

The default network on the default data takes a few seconds. The first run on a
machine also compiles the kernels, which may take a minute."""

EPILOG = """\
examples:
  the course network on CIFAR-100, or on synthetic images without it:
    fastnet train
  your own data:
    fastnet train --data images.npz --hidden 256,64 --lr 0.05 --epochs 40
  ten classes, with momentum:
    fastnet train --classes 10 --shuffle --momentum 0.9 --lr 0.01

files in the folder --out:
  report.html        all pictures and numbers in one file
  train.csv          one line per epoch, written at the end of the epoch
  model.safetensors  the trained network, for fastnet.load
                     (only if the package safetensors is installed)
  curves.png  confusion_matrix.png  class_accuracy.png  images.png
  mistakes.png  weights.png"""


FORMATTER = argparse.RawTextHelpFormatter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what follows ``fastnet train``."""
    option = parser.add_argument
    option("--data", default="auto", metavar="DATA",
           help=f"{SOURCES}\n(default: auto, which is cifar100 if fastnet finds it)")
    option("--data-seed", type=int, default=0, metavar="N", help="seed that draws the classes of CIFAR-100 (default: 0)")
    option("--classes", type=int, default=5, metavar="N", help="number of classes (default: 5)")
    option("--hidden", type=widths, default=(500,), metavar="WIDTHS",
           help="hidden units; 1024,512 makes two layers, 0 none\n(default: 500)")
    option("--lr", type=float, default=0.1, metavar="RATE", help="learning rate (default: 0.1)")
    option("--epochs", type=int, default=20, metavar="N", help="passes through the data (default: 20)")
    option("--batch-size", type=int, default=128, metavar="N", help="samples per step (default: 128)")
    option("--validation", type=float, default=0.1, metavar="SHARE",
           help="share of the training data that is held out for\nvalidation (default: 0.1)")
    option("--early-stop", type=int, metavar="N", help="stop after N epochs without a lower validation loss")
    option("--shuffle", action="store_true", help="take the samples in a new order each epoch")
    option("--momentum", type=float, default=0.0, metavar="M", help="momentum, at least 0 and below 1 (default: 0)")
    option("--weight-decay", type=float, default=0.0, metavar="D", help="factor of the weight decay (default: 0)")
    option("--seed", type=int, default=0, metavar="N", help="seed of the weights and of the order (default: 0)")
    option("--dtype", default="float32", metavar="TYPE", help="float32 or float64 (default: float32)")
    option("--out", type=Path, default=Path("results"), metavar="FOLDER", help="folder for the files (default: results)")


def widths(text: str) -> tuple[int, ...]:
    """Read numbers of hidden units from "500" or "1024,512"; "0" means no hidden layer."""
    found = tuple(int(width) for width in text.split(",") if width.strip() not in ("", "0"))
    if any(width < 1 for width in found):
        raise ValueError(text)
    return found


widths.__name__ = "width or list of widths"  # argparse names the type so in an error


def network(sizes: tuple[int, ...], dtype: Any, rng: np.random.Generator) -> Sequential:
    """Build a network of FullLayer and ReluLayer in turn, with SoftMaxLayer at the end."""
    layers: list[Any] = []
    for n_i, n_o in pairwise(sizes):
        layers += [FullLayer(n_i, n_o, dtype, rng), ReluLayer()]
    return Sequential((*layers[:-1], SoftMaxLayer()), loss=CrossEntropyLayer())


def execute(arguments: argparse.Namespace) -> int:
    """Train, write the files, and print a summary."""
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # each is printed once
        warnings.showwarning = lambda message, *_: print(f"fastnet: {message}", file=sys.stderr)
        try:
            return _trained(arguments)
        except (ValueError, TypeError, OSError) as error:
            return failed(error)


def _trained(a: argparse.Namespace) -> int:
    if not 0 <= a.validation < 1:
        raise ValueError(f"--validation must be at least 0 and below 1, got {a.validation:g}.")
    data = load(a.data, a.data_seed, a.dtype, a.classes)
    (x, t), test = data
    held_out = round(a.validation * len(x))
    rng = np.random.default_rng(a.seed)
    model = network((x.shape[1], *a.hidden, t.shape[1]), a.dtype, rng)
    a.out.mkdir(parents=True, exist_ok=True)
    initial = model.layers[0].W.copy()
    started = time.perf_counter()
    model.fit(x[held_out:], t[held_out:], a.epochs, a.lr, a.batch_size, shuffle=a.shuffle, rng=rng, momentum=a.momentum,
              weight_decay=a.weight_decay, early_stop=a.early_stop, callbacks=CSVLogger(a.out / "train.csv"),
              validation=(x[:held_out], t[:held_out]) if held_out else None)
    seconds = time.perf_counter() - started
    written = _write(a, model, data, test, seconds, initial)
    history = model.history
    assert history is not None  # fit leaves one
    print(f"{data.name}: {len(x) - held_out} training, {held_out} validation, {len(test[0])} test samples")
    print(f"test accuracy {model.score(*test):.4f} after {history.epochs} epochs ({history.stopped})\n"
          f"{_epoch_time(history)} per epoch, {seconds:.1f} s in all with loading or compiling the kernels\n"
          f"Files in {a.out}: {', '.join(written)}")
    return 0


def _epoch_time(history: Any) -> str:
    """Return the median time of an epoch, which leaves out that the first one may load or compile kernels."""
    return f"{np.median(history.seconds):.3g} s"


def _write(
    a: argparse.Namespace, model: Sequential, data: Any, test: Any, seconds: float, initial: np.ndarray,
) -> list[str]:
    """Write pictures, model and report, and return the files' names."""
    from fastnet import plots
    from fastnet.cli.report import page

    x, labels = test
    p = model.predict_proba(x)
    names = data.class_names
    drawn = [("curves", "Curves", "The loss on the training data and on the held-out validation data. A dot marks the "
              "lowest validation loss: training beyond it no longer helps.", model.plot())]
    if np.isfinite(p).all():
        drawn += [("confusion_matrix", "Confusion matrix", "How often the network predicted each class for each true class, "
                   "on the test data. Right predictions are on the diagonal.", plots.confusion_matrix(labels, p, names)),
                  ("class_accuracy", "Accuracy of each class", "The share of test samples that the network classified "
                   "correctly; higher is better. Brackets give the number of samples.",
                   plots.class_accuracy(labels, p, names))]
    if plots.looks_like_images(x.shape[1]):
        drawn += [("images", "Samples", "Some of the test images of each class.", plots.images(x, labels, names))]
        if np.isfinite(p).all():
            drawn += [("mistakes", "Mistakes", "The misclassified test images with the highest predicted probability.",
                       plots.mistakes(x, labels, p, names))]
        drawn += [("weights", "What the first layer learned", f"The change of the weights of the {_UNITS} units that "
                   "changed most. Each picture is one unit: bright and dark shapes and colours are what it learned to "
                   "respond to, grey is no change, and a picture of noise means that it learned nothing visible.",
                   plots.weights(model, n=_UNITS, initial=initial))]
    pictures = {name: figure.png() for name, _, _, figure in drawn}
    for name, png in pictures.items():
        (a.out / f"{name}.png").write_bytes(png)
    written = [f"{name}.png" for name in pictures]
    try:
        model.save(a.out / "model.safetensors")
        written.append("model.safetensors")
    except ImportError as error:
        print(f"fastnet: could not save the model: {error}", file=sys.stderr)
    right = int((p.argmax(axis=1) == labels).sum())
    low, high = plots.wilson(right, len(labels))
    history = model.history
    assert history is not None
    (a.out / "report.html").write_text(page(
        f"{data.name}: {'-'.join(map(str, (x.shape[1], *a.hidden, len(names))))}",
        f"{history.epochs} epochs at learning rate {a.lr:g}, batch size {a.batch_size}: {history.stopped}.",
        {"test accuracy": f"{right / len(labels):.3f}", "95% interval": f"{low:.3f} to {high:.3f}",
         "last training loss": f"{history.losses[-1]:.4g}", "median time of an epoch": _epoch_time(history)},
        [(heading, text, pictures[name]) for name, heading, text, _ in drawn],
        _facts(a, model) | {"time": f"{seconds:.1f} s in all, with loading or compiling the kernels"}), encoding="utf-8")
    return ["report.html", "train.csv", *written]


def _facts(a: argparse.Namespace, model: Sequential) -> dict[str, str]:
    words = ["fastnet", "train"]
    for name, value in vars(a).items():
        if name not in ("run", "out") and value is not None and value is not False:
            words.append(f"--{name.replace('_', '-')}")
            if value is not True:
                words.append(shlex.quote((",".join(map(str, value)) or "0") if isinstance(value, tuple) else str(value)))
    history = model.history
    assert history is not None
    return {"command": " ".join(words), "network": repr(model), "engine": f"{history.engine}; {history.why}".rstrip("; "),
            "versions": f"fastnet {__version__}, NumPy {np.__version__}, Python {platform.python_version()}"}
