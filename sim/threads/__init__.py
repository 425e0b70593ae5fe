"""Threads on the clock: what models of malloc and free for threads share below their rooms."""
