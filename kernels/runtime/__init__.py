"""How threads share work: the pool, how a thread waits for another one, and the phases of a compiled program."""
