"""From layers to compiled programs.

============  ======================================================================================================
``memory``    regions of memory, versions of what stands in them, values, parameters
``schedule``  which values share memory, the proof that every read finds its version, barriers, offsets
``builder``   what a layer's ``lower`` is given: it makes ops of the layer's passes
``images``    the same for layers of images
``runner``    `CompiledProgram`: a program with its memory, its commands and its threads
============  ======================================================================================================
"""
