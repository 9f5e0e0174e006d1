"""Studies: programs that print one table or picture of the documentation each, ``python -m bench.studies.NAME``."""
