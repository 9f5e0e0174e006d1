"""What a sweep shows: arrays, tables, pictures, a report."""
