"""The training step as a list of ops: the ops themselves, Gram space, and the interpreter that runs them on all threads."""
