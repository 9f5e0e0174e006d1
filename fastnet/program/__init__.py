"""From layers to compiled programs.

============  ======================================================================================================
``memory``    regions of memory, versions of their contents, values, parameters
``schedule``  which values share memory, the proof that every read finds its version, barriers, offsets
``builder``   makes the ops of a layer's passes, as the layer's ``lower`` asks
``images``    images: their memory, their blocks, ops between them and rows
``filters``   how the filters of a convolution lie
``runner``    `CompiledProgram`: a program with its memory, its commands and its threads
============  ======================================================================================================
"""
