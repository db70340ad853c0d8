"""Memory: turns become memories, memories are organised, found and forgotten. Knows no HTTP, no jobs, no provider."""
