"""The allocators of the textbooks: bump, free lists with first, next and best fit, and segregated fit."""
