"""Compare a folder of the course's layers, a participant's own, with fastnet's.

::

    python -m fastnet.check course/layers
    python -m fastnet.check submissions/*/layers --timeout 60        or: fastnet check ...

Each layer gets fastnet's weights, and then the same input: ``forward``, ``backward``, ``update_param``, a second batch of
another size, and gradients by differences. ``Sequential`` is tried with fastnet's layers, so that a fault is found where
it is, and last the folder's own network is trained for some epochs. What differs is printed: in which call, at which
element, what it is and what was expected.

The layers of both chapters are known: full, relu, softmax, cross_entropy, sequential; conv, maxpool, flatten; and the
helpers of dataset.py, whose ``cifar100`` is read and not run.

The folder's code runs in processes of its own: it may print, raise, exit, crash or never return, and the others are still
compared. It is not otherwise confined; check only code that you would run.

Exit codes: 0 if everything agrees; 1 if something differs, fails or is missing; 2 if there is nothing to compare.
"""
