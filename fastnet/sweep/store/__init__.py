"""What a sweep keeps on disk: its journal, and the states of stopped trials."""
