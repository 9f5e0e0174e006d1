"""Which rate to take, and how sure that is."""
