"""Compare a folder of the course's layers, a participant's own, with the chapter's equations.

::

    python -m fastnet.check course/layers              or: fastnet check course/layers
    fastnet check layers.py --html                     a single file of all layers, and a page
    fastnet check submissions/*/layers --table -       a class

The check gives each layer weights and inputs that the chapters promise it, and compares every result with that of the right
layer in plain NumPy: it compiles nothing. Each method of ``Sequential`` is tried with the right layers and the other methods
put right, so that a fault is found where it is. What differs is explained: the equation, the line that computes it, the slip
if the numbers tell, and three lines that show it.

Three verdicts. **ok**; **ok with remarks**: it passes the course, and could be better (it is not stable, it loops over
single elements, it writes into its input); **DIFFERS**.

How a slip is found: the numbers are compared with those of known slips (`fastnet.check._slips`), and small changes of the
code are tried until the numbers are right (`fastnet.check._repair`).

The folder's code runs in a separate process, on a copy: it may print, raise, exit, crash, write files or never return, and
the others are still compared. That is no protection from hostile code.

Exit codes: 0 if nothing differs; 1 if something differs or is missing; 2 if there is nothing to compare.
"""
