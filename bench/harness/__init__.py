"""What the benchmarks share: races against other libraries, the machine's peaks, statistics, tables and the report."""
