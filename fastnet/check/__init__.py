"""Compare the layers that a participant of the course wrote with the chapter's equations.

::

    python -m fastnet.check course/layers              or: fastnet check course/layers
    fastnet check layers.py --html                     a single file of all layers, and a page
    fastnet check submissions/*/layers --table -       a class

The check runs each layer with weights and inputs that the chapters allow, and compares every result with that of a right
layer in plain NumPy. It compiles nothing. It tries each method of ``Sequential`` with right layers and the other methods
corrected, so that it finds a fault where it is. For each difference it prints the equation, the line that computes it, the
mistake if the numbers show it, and three lines of code that reproduce it.

There are three verdicts. **ok**; **ok with remarks**: the layer passes the course, but could be better (it is not stable,
loops over single elements, or writes into its input); **DIFFERS**.

To find a mistake, the check compares the numbers with those of known mistakes (`fastnet.check._slips`), and tries small
changes of the code until the numbers are right (`fastnet.check._repair`).

The folder's code runs in a separate process, on a copy. If it prints, raises, exits, crashes, writes files or never returns,
the check still compares the other files. That is no protection from hostile code.

Exit codes: 0 if nothing differs; 1 if something differs or is missing; 2 if there is nothing to compare.
"""
