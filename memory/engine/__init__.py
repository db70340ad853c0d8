"""The local model engine: one llama.cpp context shared by many chats. The only door to llama_cpp.

Importing this package loads nothing heavy; `memory.engine.engine.Engine` is what runs, `settings` what it is told,
`chat` what it is asked. Knows no HTTP.
"""
