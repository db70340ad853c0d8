"""Parametric memory: what a cube's memories say, trained into a small adapter (LoRA) for one local model.

In: consolidated memories (never raw turns) and a GGUF file. Out: a GGUF adapter that the engine lays over the model, and
figures of what it learned. `samples` makes the questions and answers, `training` trains, `export` writes and reads the file,
`child` is the process in which this happens, `run` starts it and waits. The only door to transformers, peft and gguf, which
the extra `lora` brings; importing this package loads none of them.
"""
