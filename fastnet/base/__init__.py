"""What every layer builds on: base class, attributes, buffers, checks, error texts and float types."""
