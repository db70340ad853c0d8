"""Upstreams: the model providers behind us, one module a kind."""
