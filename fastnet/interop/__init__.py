"""Models in the forms of other libraries: files in the safetensors format, modules of PyTorch."""
