"""The command ``fastnet sweep``: a sweep from the command line."""
from __future__ import annotations

import argparse
import contextlib
import shlex
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fastnet import (
    ConvLayer,
    CrossEntropyLayer,
    FlattenLayer,
    FullLayer,
    MaxPoolLayer,
    ReluLayer,
    Sequential,
    SoftMaxLayer,
)
from fastnet.cli import failed
from fastnet.dataset import SOURCES, load
from fastnet.sweep.choice.metrics import DEFAULTS
from fastnet.sweep.grid import checked_rates, is_automatic
from fastnet.sweep.result import SweepResult
from fastnet.sweep.run.networks import check, lr_sweep
from fastnet.sweep.run.schedules import NAMED
from fastnet.sweep.run.session import SweepError
from fastnet.sweep.store.journal import has_trials

DESCRIPTION = """\
Train a network with many learning rates and seeds, and suggest the best rate.

A network learns slowly with too small a rate, and diverges with too large a
rate; between them the accuracy has a broad maximum, which a sweep finds. It
trains each rate with several seeds, which draw the initial weights: a
difference that is smaller than the one between seeds has no meaning. The sweep
judges rates by validation data, which it holds out of the training data. It
only reports results on the test data. The default sweep takes about a minute."""

EPILOG = """\
examples:
  find the range of rates, and refine it around the best rate:
    fastnet sweep
  seven rates with ten seeds:
    fastnet sweep --lrs 0.05:0.5:log7 --seeds 10
  four rates; continue an earlier sweep:
    fastnet sweep --lrs 0.01,0.1,0.3,10 --out results/ --resume
  stop trials early that are clearly worse:
    fastnet sweep --lrs 1e-3:1:log16 --halving
  judge by cross-validation:
    fastnet sweep --folds 5
  several hyperparameters:
    fastnet sweep --batch-size 32,128 --momentum 0,0.9
  three networks, the last one with two hidden layers:
    fastnet sweep --hidden 100 --hidden 500 --hidden 1024,512
  on a Dask cluster:
    fastnet sweep --dask tcp://scheduler:8786

files in the folder --out:
  report.html  all results in one page: curves, intervals, trials that were
               stopped or diverged, cost
  sweep.png    loss against epoch for each rate, and accuracy against the rate
               with its 95% interval
  sweep.csv    one line per trial
  sweep.json   all results, with those of each epoch
  sweep.jsonl  the finished trials. After a crash or Ctrl-C, the same command
               with --resume continues from it. With more rates, seeds or epochs
               it runs only the missing trials."""


FORMATTER = argparse.RawTextHelpFormatter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what follows ``fastnet sweep``."""
    option = parser.add_argument
    option("--data", default="auto", metavar="DATA",
           help=f"{SOURCES}\n(default: auto, which is cifar100 if fastnet finds it)")
    option("--data-seed", type=int, default=0, metavar="N",
           help="seed that draws the five classes of CIFAR-100\n(default: 0)")
    option("--lrs", default="auto", metavar="GRID",
           help="learning rates, such as 0.01,0.1, or a range\nFIRST:LAST:logN or FIRST:LAST:linN; auto finds the\n"
                "range (default: auto)")
    option("--seeds", default="5", metavar="N", help="number of seeds, or a list: 3,4,5 (default: 5)")
    option("--epochs", type=int, default=20, metavar="N", help="passes through the data (default: 20)")
    option("--batch-size", default="128", metavar="N", help="samples per step, or several: 32,128 (default: 128)")
    option("--network", choices=("full", "conv"), default="full",
           help="full: the chapter's network; conv: the next chapter's\n(default: full)")
    option("--hidden", action="append", type=_widths, metavar="WIDTHS",
           help="hidden units; 1024,512 makes two layers. Repeat it to\ncompare networks (default: 500)")
    option("--validation", type=float, default=0.2, metavar="SHARE",
           help="share of the training data that is held out to judge\nrates (default: 0.2)")
    option("--folds", type=int, default=0, metavar="N", help="judge by N-fold cross-validation instead")
    option("--halving", dest="search", action="store_const", const="halving", default="grid",
           help="successive halving: stop trials early that are clearly\nworse")
    option("--racing", dest="search", action="store_const", const="racing",
           help="run no more seeds of rates that are significantly worse")
    option("--metric", metavar="NAME",
           help=f"metric to judge by: {', '.join(DEFAULTS)},\nbest_val_accuracy, best_val_loss")
    option("--budget", metavar="N", help="limit for all trials: a number of epochs, or a time\nsuch as 90s, 5min, 2h")
    option("--shuffle", action="store_true", help="take the samples in a new order each epoch")
    option("--momentum", default="0", metavar="M", help="momentum, or several: 0,0.9 (default: 0)")
    option("--optimizer", default="sgd", metavar="NAME", help="sgd, adam or rmsprop, or several: sgd,adam\n(default: sgd)")
    option("--weight-decay", default="0", metavar="D", help="factor of the weight decay, or several: 0,1e-4\n(default: 0)")
    option("--schedule", default="constant", metavar="NAME",
           help=f"change of the rate: constant, {', '.join(NAMED)}, or\nseveral (default: constant)")
    option("--engine", default="auto", metavar="NAME", help="auto, layers, fused, gram or windows (default: auto)")
    option("--dtype", default="float32", metavar="TYPE", help="float32 or float64 (default: float32)")
    option("--out", type=Path, default=Path("results"), metavar="FOLDER", help="folder for the files (default: results)")
    option("--resume", action="store_true", help="keep the finished trials in FOLDER/sweep.jsonl, and run\nonly the others")
    option("--overwrite", action="store_true", help="delete the FOLDER/sweep.jsonl of an earlier sweep")
    option("--keep-states", action="store_true", help="store the state of each trial, to add epochs later")
    option("--dask", metavar="ADDRESS",
           help="address of a Dask scheduler, such as tcp://HOST:8786,\nwhose workers run the trials")


def execute(arguments: argparse.Namespace) -> int:
    """Run the sweep and write its files."""
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # each is printed once
        warnings.showwarning = lambda message, *_: print(f"fastnet: {message}", file=sys.stderr)
        return _swept(arguments)


def _swept(arguments: argparse.Namespace) -> int:
    journal = arguments.out / "sweep.jsonl"
    try:
        options = _options(arguments)
        data = load(arguments.data, arguments.data_seed, arguments.dtype)
        data = data.as_images() if arguments.network == "conv" else data
        (x, t), test = data
        held_out = 0 if arguments.folds else _held_out(arguments.validation, len(x))
        builders = _builders(arguments, x.shape[1:], t.shape[1])
        _journal_for(arguments, journal)
        with _executor(arguments.dask) as executor:
            result = lr_sweep(builders, x[held_out:], t[held_out:], resume=journal, executor=executor, progress=True,
                              validation=(x[:held_out], t[:held_out]) if held_out else None, test=test, **options)
    except SweepError as error:
        failed(error)
        print(f"The finished trials are in {journal}; --resume continues from there.", file=sys.stderr)
        _report(error.result, arguments.out, data)
        return 1
    except (ValueError, TypeError, OSError, RuntimeError, ImportError) as error:
        return failed(error)
    return _report(result, arguments.out, data)


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of lr_sweep, after a check before anything is read or written."""
    if arguments.resume and arguments.overwrite:
        raise ValueError("--resume keeps the trials of an earlier sweep, and --overwrite deletes them. Give only one.")
    schedules = [name.strip() for name in arguments.schedule.split(",")]
    options = {"lrs": arguments.lrs if is_automatic(arguments.lrs) else checked_rates(arguments.lrs, "--lrs"),
               "epochs": arguments.epochs, "seeds": _seeds(arguments.seeds),
               "batch_size": _several("--batch-size", arguments.batch_size, int), "folds": arguments.folds,
               "engine": arguments.engine, "shuffle": arguments.shuffle, "metric": arguments.metric,
               "momentum": _several("--momentum", arguments.momentum, float),
               "weight_decay": _several("--weight-decay", arguments.weight_decay, float),
               "schedule": {name: name for name in schedules}, "search": arguments.search,
               "keep_states": arguments.keep_states, "budget": _budget(arguments.budget),
               "optimizer": [name.strip() for name in arguments.optimizer.split(",")]}
    check(**options)
    return options


def _journal_for(arguments: argparse.Namespace, journal: Path) -> None:
    """Make the folder, and refuse an earlier sweep in it unless the user continues or deletes it."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    if journal.exists() and not arguments.resume:
        if not arguments.overwrite and has_trials(journal):
            raise FileExistsError(f"{journal} holds the trials of an earlier sweep. Add --resume to continue it, "
                                  "--overwrite to delete it, or choose another folder with --out.")
        journal.unlink()
        shutil.rmtree(f"{journal}.states", ignore_errors=True)


def _report(result: SweepResult, out: Path, data: Any) -> int:
    """Print the table, then write the files; an error in one file does not affect the others."""
    if not result.finished:
        return 130
    print(result)
    with contextlib.suppress(ValueError):  # all diverged, as the table shows
        result.suggest()  # for its warnings
    title = f"{data.name}: {len(result.lrs)} rates, up to {len(result.spec.repeats())} trials each"
    command = "fastnet " + " ".join(map(shlex.quote, sys.argv[1:]))

    def picture(path: Path) -> None:
        figure = result.plot()
        figure.suptitle(title)
        figure.savefig(path, dpi=150)

    writers = {"report.html": lambda path: result.save_report(path, command, title), "sweep.png": picture,
               "sweep.csv": result.to_csv, "sweep.json": result.to_json}
    written = []
    for name, write in writers.items():
        try:
            write(out / name)
            written.append(name)
        except Exception as error:  # a full disk, or an error in drawing
            print(f"fastnet: {out / name} could not be written: {error}", file=sys.stderr)
    if written:
        print(f"\nIn {out}: {', '.join(written)}")
    by_search = result.spec.search != "grid" or result.spec.budget is not None  # these leave out trials
    missing = 0 if by_search else len(result.spec.trials()) - result.finished
    if missing:
        print(f"{missing} trials are missing. Continue with --resume.", file=sys.stderr)
        return 130
    return 0 if len(written) == len(writers) else 1


def _builders(arguments: argparse.Namespace, shape: tuple[int, ...], n_o: int) -> Any:
    if arguments.network == "conv":
        if arguments.hidden:
            raise ValueError("--hidden is for --network full: the convolutional network of the next chapter has no hidden "
                             "layer. Leave out one of these options.")
        return _convolutional(arguments.dtype, shape, n_o)
    (n_i,) = shape

    def builder(hidden: tuple[int, ...]) -> Callable[[np.random.Generator], Sequential]:
        def build(rng: np.random.Generator) -> Sequential:
            layers: list[Any] = []
            for before, after in zip((n_i, *hidden), (*hidden, n_o)):
                layers += [FullLayer(before, after, arguments.dtype, rng), ReluLayer()]
            return Sequential((*layers[:-1], SoftMaxLayer()), loss=CrossEntropyLayer())
        return build

    networks = {"-".join(map(str, hidden)) or "no hidden layer": builder(hidden) for hidden in arguments.hidden or [(500,)]}
    return networks if len(networks) > 1 else next(iter(networks.values()))


def _convolutional(dtype: str, shape: tuple[int, ...], n_o: int) -> Callable[[np.random.Generator], Sequential]:
    """Return a function that builds the next chapter's network, for images of any size."""
    c, r, k = shape

    def build(rng: np.random.Generator) -> Sequential:
        return Sequential((ConvLayer(c, 16, 3, dtype, rng), ReluLayer(), MaxPoolLayer(2), ConvLayer(16, 32, 3, dtype, rng),
                           ReluLayer(), MaxPoolLayer(2), FlattenLayer(),
                           FullLayer(32 * (r // 4) * (k // 4), n_o, dtype, rng), SoftMaxLayer()), loss=CrossEntropyLayer())
    return build


def _budget(text: str | None) -> float | str | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def _several(flag: str, text: str, kind: Callable[[str], Any]) -> list[Any]:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{flag} must be a number, or a list such as 0,0.9, got {text!r}.") from None


def _held_out(part: float, n: int) -> int:
    if not 0 <= part < 1:
        raise ValueError(f"--validation must be at least 0 and below 1, got {part:g}. It is a share of the training data.")
    return round(part * n)


def _widths(text: str) -> tuple[int, ...]:
    widths = tuple(int(width) for width in text.split(",") if width.strip() not in ("", "0"))
    if any(width < 1 for width in widths):
        raise ValueError(text)
    return widths


_widths.__name__ = "width or list of widths"  # argparse names the type so in an error


def _seeds(text: str) -> Any:
    try:
        return [int(seed) for seed in text.split(",")] if "," in text else int(text)
    except ValueError:
        raise ValueError(f"--seeds must be a number, or a list such as 3,4,5, got {text!r}.") from None


@contextlib.contextmanager
def _executor(address: str | None) -> Iterator[Any]:
    if address is None:
        yield None
        return
    try:
        from distributed import Client
    except ImportError:
        raise ImportError('--dask needs Dask: pip install "fastnet-kernels[dask]".') from None
    try:
        client = Client(address, timeout="5s")
    except (OSError, ValueError) as error:
        raise OSError(f"there is no Dask scheduler at {address}: {error}. Start one with: dask scheduler") from None
    with client:
        yield client.get_executor()
