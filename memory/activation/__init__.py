"""Activation memory: what a model has computed from a beginning of a prompt, kept in RAM and in files, cube by cube.

A state is a payload of bytes with the tokens that it was computed from. Knows no model: who computes and restores payloads is
`memory.engine`; which ones are worth keeping is a function handed in.
"""
