"""Go's allocator: one file per structure of the runtime, under the runtime's own names."""
