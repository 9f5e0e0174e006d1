"""One line on the error stream: trials done, diverged, best so far, time left."""
from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from fastnet.sweep.spec import Spec
from fastnet.sweep.trial import Record


@contextlib.contextmanager
def progress_line(shown: bool | None, spec: Spec) -> Iterator[Callable[[Record], None]]:
    """A function to call with each finished trial; `shown` None means on terminals."""
    if shown is None:
        shown = sys.stderr is not None and sys.stderr.isatty()
    if not shown:
        yield lambda record: None
        return
    from tqdm import tqdm  # here, since importing fastnet must stay quick

    diverged = 0
    best: Record | None = None

    def show(record: Record) -> None:
        nonlocal diverged, best
        if record.status == "diverged":
            diverged += 1
        elif best is None or _score(record) > _score(best):
            best = record
        parts = [f"{diverged} diverged"] if diverged else []
        if best is not None:
            what = f"accuracy {best.val_accuracies[-1]:.3f}" if best.val_accuracies else f"loss {best.losses[-1]:.4g}"
            parts.append(f"best {what} at {best.trial}")
        bar.set_postfix_str("; ".join(parts), refresh=False)
        bar.update()

    with tqdm(total=len(spec.trials()), desc="sweep", unit="trial", file=sys.stderr, dynamic_ncols=True) as bar:
        yield show


def _score(record: Record) -> float:
    return record.val_accuracies[-1] if record.val_accuracies else -record.losses[-1]
